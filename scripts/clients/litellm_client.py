"""Cases of LiteLLM: python litellm_client.py http://127.0.0.1:8080"""

import importlib.metadata
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from cases import FOX, QUESTION, SERVER, case, refused, run

litellm.suppress_debug_info = True


def ask(model="openai/wsd", **more):
    base = SERVER if model.startswith(("anthropic", "ollama")) else f"{SERVER}/v1"
    return litellm.completion(**{"model": model, "messages": FOX, "api_base": base, "api_key": "none", **more})


def words(reply):
    return reply.choices[0].message.content


@case
def chat_answers():
    reply = ask()
    assert words(reply) and reply.choices[0].finish_reason == "stop" and reply.usage.total_tokens > 10


@case
def chat_streams():
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(stream=True)]
    assert "".join(pieces) == words(ask())


@case
def chat_through_anthropic():
    assert words(ask("anthropic/wsd", max_tokens=100)) == words(ask())


@case
def streams_through_anthropic():
    chunks = ask("anthropic/wsd", max_tokens=100, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == words(ask())


@case
def chat_through_ollama():
    assert words(ask("ollama_chat/wsd")) == words(ask())


@case
def streams_through_ollama():
    chunks = ask("ollama_chat/wsd", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == words(ask())


@case
def responses():
    reply = litellm.responses(model="openai/wsd", input=QUESTION, api_base=f"{SERVER}/v1", api_key="none")
    assert reply.output[0].content[0].text == words(ask())


@case
def text_completion():
    reply = litellm.text_completion(
        model="text-completion-openai/base", prompt="A fox is", max_tokens=4, api_base=f"{SERVER}/v1", api_key="none"
    )
    assert reply.choices[0].text


@case
def embeddings():
    reply = litellm.embedding(model="openai/base", input=["A fox"], api_base=f"{SERVER}/v1", api_key="none")
    assert len(reply.data[0]["embedding"]) > 8


@case
def penalties_and_bias():
    assert words(ask(presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"5": 1}, seed=3, temperature=0.5))


@case
def metadata_and_users():
    assert words(ask(user="u", metadata={"a": "b"}, extra_body={"metadata": {"a": "b"}, "store": True})) == words(ask())


@case
def reasoning_effort_is_accepted():
    assert words(ask(extra_body={"reasoning_effort": "low"})) == words(ask())


@case
def no_such_model():
    refused(litellm.NotFoundError, "gpt-4", ask, model="openai/gpt-4")


run(f"litellm {importlib.metadata.version('litellm')}")
