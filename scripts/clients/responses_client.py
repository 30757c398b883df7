"""Cases of OpenAI's Python client for Responses and embeddings: python responses_client.py http://127.0.0.1:8080"""

import openai
from cases import FOX, QUESTION, SERVER, case, refused, run

CLIENT = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="none", max_retries=0)


def ask(**more):
    return CLIENT.responses.create(**{"model": "wsd", "input": QUESTION, **more})


def chat_text(messages=FOX, **more):
    return CLIENT.chat.completions.create(model="wsd", messages=messages, **more).choices[0].message.content


@case
def a_string_is_a_question():
    reply = ask()
    assert reply.output_text == chat_text() and reply.status == "completed" and reply.id.startswith("resp_")


@case
def items_are_a_conversation():
    items = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
    assert ask(input=items).output_text == chat_text()


@case
def instructions_are_the_system_message():
    messages = [{"role": "system", "content": "Be brief."}, *FOX]
    assert ask(instructions="Be brief.").output_text == chat_text(messages)


@case
def output_goes_back_as_input():
    first = ask()
    items = [*FOX, *first.output, {"role": "user", "content": "And a frog?"}]
    messages = [*FOX, {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "And a frog?"}]
    assert ask(input=items).output_text == chat_text(messages)


@case
def an_earlier_response_goes_on():
    first = ask()
    messages = [*FOX, {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "And a frog?"}]
    second = ask(input="And a frog?", previous_response_id=first.id)
    assert second.output_text == chat_text(messages) and second.previous_response_id == first.id


@case
def an_unknown_earlier_response():
    error = refused(openai.NotFoundError, "resp_none", ask, previous_response_id="resp_none")
    assert error.code == "previous_response_not_found" and error.param == "previous_response_id"


@case
def a_response_that_was_not_stored():
    first = ask(store=False)
    refused(openai.NotFoundError, first.id, ask, previous_response_id=first.id)


@case
def counts_and_limits():
    reply = ask(max_output_tokens=3)
    assert reply.usage.output_tokens == 3 and reply.status == "incomplete"
    assert reply.incomplete_details.reason == "max_output_tokens"
    assert reply.usage.total_tokens == reply.usage.input_tokens + 3


@case
def cached_tokens_are_told():
    ask()
    assert ask().usage.input_tokens_details.cached_tokens > 0


@case
def a_stream_has_the_official_events():
    events = list(ask(stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == chat_text() == events[-1].response.output_text


@case
def the_helper_for_streams_collects_the_response():
    with CLIENT.responses.stream(model="wsd", input=QUESTION) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(deltas) == stream.get_final_response().output_text == chat_text()


@case
def a_cut_stream_is_incomplete():
    assert list(ask(stream=True, max_output_tokens=2))[-1].type == "response.incomplete"


@case
def tools_of_the_provider_are_skipped():
    assert ask(tools=[{"type": "web_search"}], tool_choice="auto").output_text == chat_text()


@case
def what_changes_nothing_is_accepted():
    reply = ask(metadata={"a": "b"}, prompt_cache_key="k", safety_identifier="s", truncation="auto",
                reasoning={"effort": "low"}, include=["reasoning.encrypted_content"], text={"verbosity": "low"})
    assert reply.output_text == chat_text() and reply.metadata == {"a": "b"}


@case
def thoughts_in_the_input_are_skipped():
    items = [{"type": "reasoning", "id": "rs_1", "summary": []}, *FOX]
    assert ask(input=items).output_text == chat_text()


@case
def sampling_is_that_of_chat():
    more = {"temperature": 1.0, "top_p": 0.9}
    assert ask(**more, extra_body={"seed": 5}).output_text == chat_text(seed=5, **more)


@case
def an_image_is_refused_by_its_path():
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
    assert refused(openai.BadRequestError, "no image", ask, input=items).param == "input[0].content[0].type"


@case
def an_unknown_parameter():
    refused(openai.BadRequestError, "windw", ask, extra_body={"wsd": {"windw": 1}})


@case
def an_empty_question_is_answered():
    assert ask(input=[], max_output_tokens=1).usage.output_tokens <= 1


@case
def embeddings_in_base64_and_in_floats():
    # The client asks for base64 and decodes it.
    packed = CLIENT.embeddings.create(model="base", input=["A fox is red.", "A frog is green."])
    plain = CLIENT.embeddings.create(model="base", input="A fox is red.", encoding_format="float")
    assert len(packed.data) == 2 and packed.usage.prompt_tokens > 8
    near = zip(packed.data[0].embedding, plain.data[0].embedding)
    assert all(abs(a - b) < 1e-6 for a, b in near)


@case
def embeddings_of_no_such_model():
    create = CLIENT.embeddings.create
    refused(openai.NotFoundError, "base, draft", create, model="text-embedding-3-small", input="a")


run(f"openai {openai.__version__}, responses and embeddings")
