"""Cases of Anthropic's Python client: python anthropic_client.py http://127.0.0.1:8080"""

import anthropic
from cases import FOX, QUESTION, SERVER, case, refused, run

CLIENT = anthropic.Anthropic(base_url=SERVER, api_key="none", max_retries=0)


def ask(**more):
    return CLIENT.messages.create(**{"model": "wsd", "max_tokens": 100, "messages": FOX, **more})


def words(reply):
    return "".join(block.text for block in reply.content)


@case
def a_message_is_answered():
    reply = ask()
    assert reply.type == "message" and reply.role == "assistant" and words(reply)
    assert reply.stop_reason == "end_turn" and reply.id.startswith("msg_") and reply.model == "wsd"


@case
def the_answer_tells_the_hand_over():
    assert ask().model_extra["wsd"]["handover"]["confidence"] > 0


@case
def blocks_are_joined():
    parts = [{"type": "text", "text": "What colour "}, {"type": "text", "text": "is a fox?"}]
    assert words(ask(messages=[{"role": "user", "content": parts}])) == words(ask())


@case
def a_system_text_and_system_blocks():
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert words(ask(system="Be brief.")) == words(ask(system=blocks))


@case
def a_limit():
    reply = ask(max_tokens=3)
    assert reply.stop_reason == "max_tokens" and reply.usage.output_tokens == 3


@case
def a_stop_sequence_is_named():
    word = words(ask()).split()[2]
    reply = ask(stop_sequences=["never", word])
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", word) and word not in words(reply)


@case
def counts_agree():
    counted = CLIENT.messages.count_tokens(model="wsd", messages=FOX).input_tokens
    usage = ask().usage
    assert usage.input_tokens + usage.cache_read_input_tokens == counted > 5


@case
def a_second_request_reads_the_cache():
    ask()
    assert ask().usage.cache_read_input_tokens > 0


@case
def a_stream_of_text():
    with CLIENT.messages.stream(model="wsd", max_tokens=100, messages=FOX) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == words(final) == words(ask()) and final.stop_reason == "end_turn"
    assert final.usage.output_tokens == ask().usage.output_tokens


@case
def the_events_of_a_stream():
    events = [event.type for event in ask(stream=True)]
    deltas = [event for event in events if event == "content_block_delta"]
    assert len(deltas) > 3
    rest = [event for event in events if event not in ("content_block_delta", "ping")]
    assert rest == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]


@case
def a_cut_stream():
    events = list(ask(stream=True, max_tokens=2))
    assert events[-2].delta.stop_reason == "max_tokens" and events[-2].usage.output_tokens == 2


@case
def a_conversation_with_thoughts():
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "Red."}]}
    more = {"role": "user", "content": "And a frog?"}
    plain = [*FOX, {"role": "assistant", "content": "Red."}, more]
    assert words(ask(messages=[*FOX, said, more])) == words(ask(messages=plain))


@case
def the_beginning_of_an_answer_is_continued():
    begun = [*FOX, {"role": "assistant", "content": "A fox"}]
    assert words(ask(messages=begun))


@case
def sampling():
    draw = lambda seed: words(ask(extra_body={"temperature": 1.0, "top_k": 40, "top_p": 0.9, "seed": seed}))
    assert draw(3) == draw(3)


@case
def what_changes_nothing_is_accepted():
    reply = ask(metadata={"user_id": "u"}, service_tier="auto", thinking={"type": "disabled"})
    assert words(reply) == words(ask())


@case
def tools_of_the_provider_are_skipped():
    assert words(ask(tools=[{"type": "web_search_20250305", "name": "web_search"}])) == words(ask())


@case
def an_image_is_refused_by_its_path():
    source = {"type": "base64", "media_type": "image/png", "data": ""}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    refused(anthropic.BadRequestError, "messages[0].content[0].type", ask, messages=messages)


@case
def no_such_model():
    error = refused(anthropic.NotFoundError, "claude", ask, model="claude-sonnet-4-5")
    assert error.body["error"]["type"] == "not_found_error"


@case
def errors_have_a_request_id():
    error = refused(anthropic.BadRequestError, "max_tokens", ask, max_tokens=0)
    assert error.body["type"] == "error" and error.request_id


@case
def the_beta_routes():
    reply = CLIENT.beta.messages.create(model="wsd", max_tokens=100, messages=FOX, betas=["prompt-caching-2024-07-31"])
    assert words(reply) == words(ask())


@case
def async_client():
    import asyncio

    async def answer():
        async with anthropic.AsyncAnthropic(base_url=SERVER, api_key="none") as client:
            return words(await client.messages.create(model="wsd", max_tokens=100, messages=FOX))

    assert asyncio.run(answer()) == words(ask())


run(f"anthropic {anthropic.__version__}")
