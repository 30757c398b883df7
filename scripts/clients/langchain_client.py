"""Cases of LangChain's chat models: python langchain_client.py http://127.0.0.1:8080"""

import asyncio
import importlib.metadata
import typing

import pydantic
from cases import QUESTION, SERVER, case, run
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

V1 = f"{SERVER}/v1"
CHAT = ChatOpenAI(base_url=V1, api_key="none", model="wsd", temperature=0)


class Colour(pydantic.BaseModel):
    """The colour of a thing."""

    thing: typing.Literal["fox", "sky"]
    colour: typing.Literal["red", "blue"]


@tool
def lookup(thing: typing.Literal["fox", "sky"]) -> str:
    """Looks a colour up."""
    return "red" if thing == "fox" else "blue"


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


@case
def structured_output_by_schema():
    assert isinstance(CHAT.with_structured_output(Colour, method="json_schema").invoke(QUESTION), Colour)


@case
def structured_output_by_function():
    assert isinstance(CHAT.with_structured_output(Colour, method="function_calling").invoke(QUESTION), Colour)


@case
def tools_offered():
    assert CHAT.bind_tools([lookup]).invoke(QUESTION) is not None


@case
def tools_forced_and_answered():
    asked = HumanMessage(QUESTION)
    answer = CHAT.bind_tools([lookup], tool_choice="any", parallel_tool_calls=False, max_tokens=200).invoke([asked])
    call, = answer.tool_calls
    assert call["name"] == "lookup"
    result = ToolMessage(lookup.invoke(call["args"]), tool_call_id=call["id"])
    assert CHAT.bind_tools([lookup]).invoke([asked, answer, result]) is not None


@case
def tools_forced_in_a_stream():
    chunks = CHAT.bind_tools([lookup], tool_choice="lookup", parallel_tool_calls=False, max_tokens=200).stream(QUESTION)
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"]["thing"] in ("fox", "sky")


run(f"langchain-openai {importlib.metadata.version('langchain-openai')}")
