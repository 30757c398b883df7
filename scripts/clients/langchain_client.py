"""Cases of LangChain's chat models: python langchain_client.py http://127.0.0.1:8080"""

import asyncio
import importlib.metadata

from cases import QUESTION, SERVER, case, run
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

V1 = f"{SERVER}/v1"
CHAT = ChatOpenAI(base_url=V1, api_key="none", model="wsd", temperature=0)


@case
def invoke():
    reply = CHAT.invoke(QUESTION)
    assert reply.content and reply.usage_metadata["output_tokens"] > 3
    assert reply.response_metadata["finish_reason"] == "stop"


@case
def stream():
    assert "".join(chunk.content for chunk in CHAT.stream(QUESTION)) == CHAT.invoke(QUESTION).content


@case
def batch():
    assert [reply.content for reply in CHAT.batch([QUESTION] * 3)] == [CHAT.invoke(QUESTION).content] * 3


@case
def messages():
    history = [SystemMessage("Be brief."), HumanMessage(QUESTION), AIMessage("Red."), HumanMessage("And a frog?")]
    assert CHAT.invoke(history).content


@case
def a_chain():
    chain = ChatPromptTemplate.from_messages([("human", "What colour is a {animal}?")]) | CHAT | StrOutputParser()
    assert chain.invoke({"animal": "fox"}) == CHAT.invoke(QUESTION).content


@case
def penalties_and_stops():
    chat = CHAT.bind(presence_penalty=0.3, frequency_penalty=0.3, stop=["!"], seed=4)
    assert "!" not in chat.invoke(QUESTION).content


@case
def logprobs():
    reply = CHAT.bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    assert reply.response_metadata["logprobs"]["content"][0]["top_logprobs"]


@case
def responses():
    chat = ChatOpenAI(base_url=V1, api_key="none", model="wsd", use_responses_api=True)
    assert chat.invoke(QUESTION).text == CHAT.invoke(QUESTION).content


@case
def responses_stream():
    chat = ChatOpenAI(base_url=V1, api_key="none", model="wsd", use_responses_api=True)
    assert "".join(chunk.text for chunk in chat.stream(QUESTION)) == CHAT.invoke(QUESTION).content


@case
def anthropic():
    chat = ChatAnthropic(base_url=SERVER, api_key="none", model="wsd", max_tokens=100)
    assert chat.invoke(QUESTION).content == CHAT.invoke(QUESTION).content


@case
def anthropic_stream():
    chat = ChatAnthropic(base_url=SERVER, api_key="none", model="wsd", max_tokens=100)
    assert "".join(chunk.text for chunk in chat.stream(QUESTION)) == CHAT.invoke(QUESTION).content


@case
def ollama():
    chat = ChatOllama(base_url=SERVER, model="wsd", num_predict=100)
    assert chat.invoke(QUESTION).content == CHAT.invoke(QUESTION).content


@case
def ollama_stream():
    chat = ChatOllama(base_url=SERVER, model="wsd", num_predict=100)
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == CHAT.invoke(QUESTION).content


@case
def text():
    assert OpenAI(base_url=V1, api_key="none", model="base", max_tokens=4, temperature=0).invoke("A fox is")


@case
def embeddings():
    # The length of texts would be counted with a tokenizer from the network.
    model = OpenAIEmbeddings(base_url=V1, api_key="none", model="base", check_embedding_ctx_length=False)
    assert len(model.embed_documents(["A fox", "A frog"])) == 2


@case
def asynchronous():
    assert asyncio.run(CHAT.ainvoke(QUESTION)).content == CHAT.invoke(QUESTION).content


run(f"langchain-openai {importlib.metadata.version('langchain-openai')}")
