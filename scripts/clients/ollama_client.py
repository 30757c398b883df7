"""Cases of Ollama's Python client: python ollama_client.py http://127.0.0.1:8080"""

import importlib.metadata

import ollama
from cases import FOX, QUESTION, SERVER, case, refused, run

CLIENT = ollama.Client(host=SERVER)


def ask(**more):
    return CLIENT.chat(**{"model": "wsd", "messages": FOX, **more})


@case
def models():
    assert {"wsd:latest", "base:latest"} <= {model.model for model in CLIENT.list().models}


@case
def one_model():
    shown = CLIENT.show("wsd:latest")
    assert shown.modelinfo["wsd.context_length"] > 0 and "completion" in shown.capabilities


@case
def chat_answers():
    reply = ask()
    assert reply.message.content and reply.done and reply.done_reason == "stop" and reply.eval_count > 3


@case
def chat_streams_the_same_text():
    parts = list(ask(stream=True))
    assert "".join(part.message.content for part in parts) == ask().message.content
    assert parts[-1].done and not parts[0].done and len(parts) > 5


@case
def a_tag_is_no_other_model():
    assert ask(model="wsd:latest").message.content == ask().message.content


@case
def generate_answers_like_chat():
    assert CLIENT.generate(model="wsd", prompt=QUESTION).response == ask().message.content


@case
def generate_with_a_system_text():
    messages = [{"role": "system", "content": "Be brief."}, *FOX]
    assert CLIENT.generate(model="wsd", prompt=QUESTION, system="Be brief.").response == ask(messages=messages).message.content


@case
def generate_streams():
    parts = list(CLIENT.generate(model="wsd", prompt=QUESTION, stream=True))
    assert "".join(part.response for part in parts) == ask().message.content


@case
def generate_raw():
    assert CLIENT.generate(model="base", prompt="A fox is", raw=True, options={"num_predict": 3}).eval_count <= 3


@case
def options_are_settings():
    options = {"temperature": 1.0, "top_k": 40, "top_p": 0.9, "seed": 5, "repeat_penalty": 1.1, "num_ctx": 4096}
    assert ask(options=options).message.content == ask(options=options).message.content


@case
def a_limit_and_a_stop_string():
    reply = ask(options={"num_predict": 3})
    assert (reply.eval_count, reply.done_reason) == (3, "length")
    assert "." not in ask(options={"stop": ["."]}).message.content


@case
def keep_alive_is_accepted():
    assert ask(keep_alive="10m").message.content


@case
def no_such_model():
    assert refused(ollama.ResponseError, "llama3", ask, model="llama3").status_code == 404


@case
def a_bad_option_is_named():
    refused(ollama.ResponseError, "options.temperature", ask, options={"temperature": -1.0})


run(f"ollama {importlib.metadata.version('ollama')}")
