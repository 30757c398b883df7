"""Cases of OpenAI's own Python client against a running `wsd serve`: python openai_client.py http://127.0.0.1:8080

Needs `pip install openai`; the server must run without a key, over the built-in pair.
"""

import concurrent.futures
import json
import typing

import openai
import pydantic
from cases import FOX, SERVER, case, run

CLIENT = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="none", max_retries=0)


def chat(**more):
    return CLIENT.chat.completions.create(**{"model": "wsd", "messages": FOX, **more})


def text(**more):
    return CLIENT.completions.create(**{"model": "base", "prompt": "A fox is", **more})


def refused(kind, param, call, **more):
    try:
        call(**more)
    except kind as error:
        assert error.param == param, error
        assert param is None or param.split(".")[-1] in str(error), error
        return error
    raise AssertionError(f"not refused: {more}")


@case
def models_are_strategies():
    assert {"wsd", "base", "draft"} <= {model.id for model in CLIENT.models.list()}


@case
def one_model():
    assert CLIENT.models.retrieve("wsd").id == "wsd"


@case
def no_such_model_to_retrieve():
    refused(openai.NotFoundError, "model", lambda: CLIENT.models.retrieve("gpt-4"))


@case
def chat_answers():
    reply = chat()
    assert reply.object == "chat.completion" and reply.choices[0].message.role == "assistant"
    assert reply.choices[0].message.content and reply.choices[0].finish_reason in ("stop", "length")


@case
def chat_counts():
    usage = chat().usage
    assert usage.prompt_tokens > 0 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@case
def chat_says_where_the_base_took_over():
    details = chat().model_extra["wsd"]
    assert details["handover"]["confidence"] >= details["handover"]["threshold"] and details["by"]["draft"] > 0


@case
def chat_streams_the_same_text():
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(stream=True) if chunk.choices]
    assert "".join(pieces) == chat().choices[0].message.content and len(pieces) > 5


@case
def chat_stream_starts_with_the_role_and_ends_with_a_reason():
    chunks = list(chat(stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason


@case
def chat_stream_counts_when_asked():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens == chat().usage.total_tokens
    assert chunks[-1].choices == [] and chunks[0].usage is None


@case
def chat_stream_names_authors_when_asked():
    chunks = chat(stream=True, extra_body={"wsd": {"tokens": True}})
    authors = [c.choices[0].model_extra["wsd"].get("by") for c in chunks if c.choices and "wsd" in c.choices[0].model_extra]
    assert authors[0] == "draft" and "base" in authors


@case
def chat_stream_can_be_closed_early():
    stream = chat(stream=True)
    next(iter(stream))
    stream.close()
    assert chat(max_tokens=1).choices


@case
def chat_max_tokens():
    reply = chat(max_tokens=3)
    assert reply.usage.completion_tokens == 3 and reply.choices[0].finish_reason == "length"


@case
def chat_max_completion_tokens():
    assert chat(max_completion_tokens=4).usage.completion_tokens == 4


@case
def chat_stop():
    whole = chat().choices[0].message.content
    reply = chat(stop=["!", "?"])
    assert whole.startswith(reply.choices[0].message.content) and "!" not in reply.choices[0].message.content


@case
def chat_stop_as_one_string():
    assert "." not in chat(stop=".").choices[0].message.content


@case
def chat_same_seed_same_text():
    ask = lambda: chat(temperature=1.0, seed=7, max_tokens=16).choices[0].message.content
    assert ask() == ask()


@case
def chat_other_seeds_other_texts():
    texts = {chat(temperature=1.5, seed=seed, max_tokens=16).choices[0].message.content for seed in range(8)}
    assert len(texts) > 2


@case
def chat_without_a_seed_is_random_and_tells_its_seed():
    replies = [chat(temperature=1.5, max_tokens=16) for _ in range(8)]
    assert len({reply.choices[0].message.content for reply in replies}) > 2
    again = chat(temperature=1.5, max_tokens=16, seed=replies[0].model_extra["wsd"]["seed"])
    assert again.choices[0].message == replies[0].choices[0].message


@case
def chat_top_p():
    assert chat(temperature=1.0, top_p=0.0001, seed=1).choices[0].message == chat().choices[0].message


@case
def chat_top_k_and_min_p():
    one = chat(temperature=1.0, extra_body={"top_k": 1}).choices[0].message
    two = chat(temperature=1.0, extra_body={"min_p": 1.0}).choices[0].message
    assert one == two == chat().choices[0].message


@case
def chat_n():
    choices = chat(n=4, temperature=1.2, seed=3, max_tokens=12).choices
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert choices[1].message == chat(temperature=1.2, seed=4, max_tokens=12).choices[0].message


@case
def chat_n_streamed():
    whole = chat(n=3, temperature=1.2, seed=3, max_tokens=12).choices
    texts = ["", "", ""]
    for chunk in chat(n=3, temperature=1.2, seed=3, max_tokens=12, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole]


@case
def chat_logprobs():
    content = chat(logprobs=True, max_tokens=5).choices[0].logprobs.content
    assert len(content) == 5 and all(token.logprob <= 0 and token.top_logprobs == [] for token in content)


@case
def chat_top_logprobs():
    for token in chat(logprobs=True, top_logprobs=5).choices[0].logprobs.content:
        values = [other.logprob for other in token.top_logprobs]
        assert len(values) == 5 and values == sorted(values, reverse=True) and token.logprob <= values[0]


@case
def chat_logprobs_streamed():
    chunks = chat(logprobs=True, top_logprobs=2, stream=True, max_tokens=5)
    streamed = [t for c in chunks for choice in c.choices if choice.logprobs for t in choice.logprobs.content]
    assert streamed == chat(logprobs=True, top_logprobs=2, max_tokens=5).choices[0].logprobs.content


@case
def chat_content_parts():
    parts = [{"role": "user", "content": [{"type": "text", "text": "What colour is "}, {"type": "text", "text": "a fox?"}]}]
    assert chat(messages=parts).choices[0].message == chat().choices[0].message


@case
def chat_system_and_history():
    first = chat().choices[0].message
    history = [{"role": "developer", "content": "Be kind."}, *FOX, first, {"role": "user", "content": "And a duck?"}]
    assert chat(messages=history).choices[0].message.content


@case
def chat_prefill():
    begun = [*FOX, {"role": "assistant", "content": "A fox is"}]
    implied = chat(messages=begun).choices[0].message
    assert implied == chat(messages=begun, extra_body={"continue_final_message": True}).choices[0].message


@case
def chat_strategies():
    texts = {name: chat(model=name).choices[0].message.content for name in ("wsd", "base", "draft")}
    assert len(set(texts.values())) > 1
    assert chat(extra_body={"wsd": {"strategy": "draft"}}).choices[0].message.content == texts["draft"]


@case
def chat_threshold_zero_hands_over_with_the_first_window():
    details = chat(extra_body={"wsd": {"threshold": 0.0, "window": 3}}).model_extra["wsd"]
    assert details["handover"]["at"] == 2 and details["by"]["draft"] == 3


@case
def chat_draft_that_may_not_hand_over():
    more = {"wsd": {"threshold": 1.0, "max_draft_tokens": 5, "on_draft_end": "stop"}}
    details = chat(extra_body=more).model_extra["wsd"]
    assert details["handover"] is None and details["by"]["draft"] > 0 and details["by"]["base"] == 0


@case
def chat_neutral_parameters():
    more = {"frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "user": "me", "response_format": {"type": "text"}}
    assert chat(**more).choices[0].message == chat().choices[0].message


@case
def chat_penalties_change_the_text():
    plain = chat().choices[0].message.content
    assert chat(presence_penalty=2, frequency_penalty=2, max_tokens=40).choices[0].message.content
    assert chat(presence_penalty=0, extra_body={"repeat_penalty": 1.0}).choices[0].message.content == plain


@case
def chat_bias_forbids_a_token():
    details = lambda **more: chat(extra_body={"wsd": {"tokens": True}}, **more).choices[0].model_extra["wsd"]["tokens"]
    first = details()[0]["id"]
    assert first not in [token["id"] for token in details(logit_bias={str(first): -100})]


@case
def chat_without_effect():
    more = {"metadata": {"a": "b"}, "store": True, "prompt_cache_key": "k", "safety_identifier": "s",
            "service_tier": "flex", "reasoning_effort": "low", "verbosity": "low"}
    assert chat(**more).choices[0].message == chat().choices[0].message


@case
def chat_tells_times_and_cached_tokens():
    chat()
    reply = chat()
    assert reply.usage.prompt_tokens_details.cached_tokens > 0
    assert reply.model_extra["timings"]["predicted_n"] == reply.usage.completion_tokens
    assert reply._request_id


@case
def chat_unknown_parameter():
    refused(openai.BadRequestError, "temprature", chat, extra_body={"temprature": 1})


@case
def chat_unknown_wsd_parameter():
    refused(openai.BadRequestError, "wsd.windw", chat, extra_body={"wsd": {"windw": 1}})


@case
def chat_unsupported_parameters():
    for name, value in {"audio": {"voice": "alloy", "format": "mp3"}, "modalities": ["audio"]}.items():
        error = refused(openai.BadRequestError, name, chat, **{name: value})
        assert error.code == "unknown_parameter"


class Person(pydantic.BaseModel):
    name: typing.Literal["Ann", "Bob"]
    age: int = pydantic.Field(ge=0, le=99)
    friend: "Person | None"


LOOKUP = {"type": "function", "function": {
    "name": "lookup", "description": "Looks a colour up",
    "parameters": {"type": "object", "properties": {"thing": {"enum": ["fox", "sky"]}}, "required": ["thing"],
                   "additionalProperties": False}}}


@case
def chat_json_object():
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "maxProperties": 0}}}
    assert json.loads(chat(response_format=format).choices[0].message.content) == {}


@case
def chat_parse():
    for model in ("wsd", "base", "nudging"):
        parsed = CLIENT.chat.completions.parse(model=model, messages=FOX, response_format=Person, max_tokens=300)
        person = parsed.choices[0].message.parsed
        assert isinstance(person, Person) and person.name in ("Ann", "Bob"), parsed


@case
def chat_parse_in_a_stream():
    with CLIENT.chat.completions.stream(model="wsd", messages=FOX, response_format=Person, max_tokens=300) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


@case
def chat_schema_that_cannot_be_met():
    schema = {"type": "integer", "minimum": 3, "maximum": 2}
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    refused(openai.BadRequestError, "response_format", chat, response_format=format)


@case
def chat_choice_of_vllm():
    assert chat(extra_body={"guided_choice": ["red", "blue"]}).choices[0].message.content in ("red", "blue")
    reply = chat(extra_body={"structured_outputs": {"regex": "[ab]{3}"}})
    assert set(reply.choices[0].message.content) <= set("ab")


@case
def chat_tools_offered():
    reply = chat(tools=[LOOKUP])
    assert reply.choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert chat(tools=[LOOKUP], tool_choice="none").choices[0].message.content == chat().choices[0].message.content


@case
def chat_tools_forced():
    for choice in ("required", {"type": "function", "function": {"name": "lookup"}}):
        reply = chat(tools=[LOOKUP], tool_choice=choice, parallel_tool_calls=False)
        message = reply.choices[0].message
        assert reply.choices[0].finish_reason == "tool_calls" and message.content is None
        call, = message.tool_calls
        assert call.function.name == "lookup" and json.loads(call.function.arguments)["thing"] in ("fox", "sky")
        result = {"role": "tool", "tool_call_id": call.id, "content": "red"}
        assert chat(messages=[*FOX, message, result], tools=[LOOKUP]).choices[0].message


@case
def chat_tools_in_a_stream():
    with CLIENT.chat.completions.stream(model="wsd", messages=FOX, tools=[LOOKUP], tool_choice="required",
                                        parallel_tool_calls=False) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.delta" in kinds
    assert json.loads(message.tool_calls[0].function.arguments)["thing"] in ("fox", "sky")


@case
def chat_tools_of_one_name():
    refused(openai.BadRequestError, "tools[1].function.name", chat, tools=[LOOKUP, LOOKUP])


@case
def chat_call_without_its_result():
    call = {"id": "c", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    asked = [*FOX, {"role": "assistant", "content": None, "tool_calls": [call]}]
    refused(openai.BadRequestError, "messages", chat, messages=asked)


@case
def chat_limits():
    for name, value in {"n": 99, "temperature": -1, "top_p": 0, "max_tokens": 0, "top_logprobs": 21}.items():
        refused(openai.BadRequestError, name, chat, **{name: value, "logprobs": True})


@case
def chat_no_messages():
    refused(openai.BadRequestError, "messages", chat, messages=[])


@case
def chat_images_are_refused():
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    refused(openai.BadRequestError, "messages[0].content[0].type", chat, messages=image)


@case
def chat_unknown_model():
    error = refused(openai.NotFoundError, "model", lambda: chat(model="gpt-4"))
    assert error.code == "model_not_found"


@case
def chat_prompt_too_long():
    long = [{"role": "user", "content": "fox " * 3000}]
    for stream in (False, True):
        error = refused(openai.BadRequestError, None, lambda: chat(messages=long, stream=stream))
        assert error.code == "context_length_exceeded"


@case
def text_answers():
    reply = text()
    assert reply.object == "text_completion" and reply.choices[0].text and reply.usage.completion_tokens <= 16


@case
def text_streams_the_same_text():
    assert "".join(chunk.choices[0].text for chunk in text(stream=True)) == text().choices[0].text


@case
def text_echo():
    assert text(echo=True).choices[0].text == "A fox is" + text().choices[0].text


@case
def text_echo_streamed():
    assert "".join(c.choices[0].text for c in text(echo=True, stream=True)) == text(echo=True).choices[0].text


@case
def text_logprobs():
    logprobs = text(logprobs=2, max_tokens=4).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == 4


@case
def text_prompt_scored():
    logprobs = text(echo=True, logprobs=1, max_tokens=0).choices[0].logprobs
    assert logprobs.token_logprobs[0] is None and all(value <= 0 for value in logprobs.token_logprobs[1:])


@case
def text_list_of_prompts():
    reply = text(prompt=["A fox is", "A duck is"], n=2)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.choices[2].text == text(prompt="A duck is").choices[0].text


@case
def text_ids():
    scored = text(echo=True, logprobs=0, max_tokens=1)
    ids = CLIENT.post(f"{SERVER}/tokenize", body={"prompt": "A fox is", "model": "base"}, cast_to=object)["tokens"]
    assert text(prompt=ids).choices[0].text == text().choices[0].text
    assert len(scored.choices[0].logprobs.tokens) == len(ids) + 1


@case
def text_lists_of_ids():
    ids = CLIENT.post(f"{SERVER}/tokenize", body={"prompt": "A fox is", "model": "base"}, cast_to=object)["tokens"]
    assert [choice.text for choice in text(prompt=[ids, ids]).choices] == [text().choices[0].text] * 2


@case
def tokens_to_text_and_back():
    ids = CLIENT.post(f"{SERVER}/tokenize", body={"prompt": "A red fox.", "add_special_tokens": False}, cast_to=object)
    back = CLIENT.post(f"{SERVER}/detokenize", body={"tokens": ids["tokens"]}, cast_to=object)
    assert back["prompt"].strip() == "A red fox." and ids["count"] == len(ids["tokens"])


@case
def sixteen_at_once_are_as_alone():
    questions = ["What colour is a fox?", "Where does a duck live?", "What does a cow eat?", "How big is a bear?"] * 4
    ask = lambda question: chat(messages=[{"role": "user", "content": question}]).choices[0].message.content
    alone = [ask(question) for question in questions]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, questions)) == alone


@case
def async_client():
    import asyncio

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(model="wsd", messages=FOX, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == chat().choices[0].message.content


run(f"openai {openai.__version__}")
