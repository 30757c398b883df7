"""Answers: the same as the program's, whole, streamed and asynchronous."""

import asyncio
import gc
import json
import re
import sys
import threading

import pytest

import wsd
from wsd.asynchronous import AsyncItems

QUESTION = "Where does the bread come from?"
SETTINGS = [
    {},
    {"temperature": 0.9, "seed": 7, "top_p": 0.9},
    {"stop": ["."], "max_tokens": 30},
]


def options(settings):
    """The settings as options of the program."""
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            yield f"--{name.replace('_', '-')}"
            yield str(one)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", [info.name for info in wsd.strategies() if info.name != "head"])
def test_answers_are_those_of_the_program(program_json, name, settings):
    answer = wsd.Strategy(name).generate(QUESTION, **settings)
    record = program_json("generate", QUESTION, "--json", "--strategy", name, *options(settings))
    assert answer.text == record["text"] and answer.finish_reason == record["finish_reason"]
    assert [token.id for token in answer.tokens] == [token["id"] for token in record["tokens"]]
    assert [token.author for token in answer.tokens] == [token["by"] for token in record["tokens"]]
    assert [token.logprob for token in answer.tokens] == [token["logprob"] for token in record["tokens"]]
    assert [token.confidence for token in answer.tokens] == [token["confidence"] for token in record["tokens"]]
    assert (answer.handover and answer.handover._asdict()) == record["handover"]
    assert answer.usage == record["usage"]


def test_a_stream_is_the_whole_answer(strategy):
    whole = strategy.generate(QUESTION, temperature=0.8, seed=3)
    stream = strategy.stream(QUESTION, temperature=0.8, seed=3)
    assert stream.answer is None
    tokens = list(stream)
    assert tokens == whole.tokens and "".join(token.text for token in tokens) == whole.text
    assert stream.answer.text == whole.text and stream.answer.usage == whole.usage
    assert list(stream) == [], "a stream yields nothing after its end"


def test_events_have_every_kind(strategy):
    events = list(strategy.events(QUESTION, top_logprobs=2))
    kinds = [type(event) for event in events]
    assert kinds[0] is wsd.Prompt and kinds[-1] is wsd.Done
    assert {wsd.Token, wsd.Handover, wsd.Call} < set(kinds)
    handover = next(event for event in events if isinstance(event, wsd.Handover))
    tokens = [event for event in events if isinstance(event, wsd.Token)]
    assert {token.author for token in tokens[: handover.at + 1]} == {"draft"}
    assert {token.author for token in tokens[handover.at + 1 :]} == {"base"}
    assert tokens[handover.at].confidence == handover.confidence >= handover.threshold
    assert all(len(token.top) == 2 for token in tokens)


def test_prompts_of_every_kind(strategy, base):
    text = strategy.generate(QUESTION, max_tokens=12)
    messages = [{"role": "user", "content": QUESTION}]
    assert strategy.generate(messages, max_tokens=12).tokens == text.tokens
    raw = strategy.generate("The duck", raw=True, max_tokens=12)
    assert raw.tokens == strategy.generate(base.tokenize("The duck", bos=True), max_tokens=12).tokens
    prefilled = strategy.generate(QUESTION, prefill="The bread", max_tokens=12)
    begun = messages + [{"role": "assistant", "content": "The bread"}]
    assert prefilled.tokens == strategy.generate(begun, max_tokens=12).tokens


def test_settings_of_the_strategy_are_defaults(strategy):
    short = wsd.Strategy("wsd", max_tokens=4, window=3)
    assert short.generate(QUESTION).usage["completion_tokens"] == 4
    assert short.generate(QUESTION, max_tokens=5).usage["completion_tokens"] == 5
    assert short.generate(QUESTION, max_tokens=None).usage["completion_tokens"] == 4
    assert wsd.generate(QUESTION, "base", max_tokens=3).usage["base_tokens"] == 3


def test_one_engine_may_sit_in_several_strategies(base):
    alone = wsd.Strategy("base", base=base)
    both = wsd.Strategy("wsd", base=base, draft="builtin:draft", draft_template="own", threads=1)
    assert alone.generate(QUESTION, max_tokens=8).usage["base_tokens"] == 8
    assert both.generate(QUESTION).text == wsd.generate(QUESTION).text
    assert both.engine.name == base.name


def test_the_table_of_strategies():
    table = {info.name: info for info in wsd.strategies()}
    assert table["wsd"].seats == ["draft", "base"] and "threshold" in table["wsd"].settings
    assert table["base"].seats == ["base"]
    for info in table.values():
        if info.name == "head":
            with pytest.raises(ValueError, match="--head FOLDER"):
                wsd.Strategy(info.name)
        else:
            assert wsd.Strategy(info.name).name == info.name


def test_async_streams_are_the_whole_answer(strategy):
    async def streamed():
        stream = strategy.stream(QUESTION)
        tokens = [token async for token in stream]
        return tokens, stream.answer

    async def both():
        return await asyncio.gather(streamed(), streamed())

    whole = strategy.generate(QUESTION)
    for tokens, answer in asyncio.run(both()):
        assert tokens == whole.tokens == answer.tokens

    async def awaited():
        return await strategy.stream(QUESTION)

    assert asyncio.run(awaited()).tokens == whole.tokens


def test_a_failure_reaches_an_async_reader(strategy):
    async def fail():
        async for _ in strategy.stream([strategy.engine.vocab_size]):
            pass

    with pytest.raises(ValueError, match="outside the vocabulary"):
        asyncio.run(fail())


class OneItem:
    """A stream that delivers one item and then takes its time."""

    def __init__(self):
        self.is_closed = False

    def _deliver(self, deliver):
        deliver("item")

    def close(self):
        self.is_closed = True


def test_a_cancelled_task_ends_the_answer():
    async def cancelled(stream):
        first = asyncio.Event()

        async def read():
            async for _ in AsyncItems(stream):
                first.set()

        task = asyncio.create_task(read())
        await first.wait()
        assert not stream.is_closed
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    stream = OneItem()
    asyncio.run(cancelled(stream))
    assert stream.is_closed


def test_a_dropped_async_iterator_ends_the_answer():
    async def dropped(stream):
        async for item in AsyncItems(stream):
            assert item == "item"
            break

    stream = OneItem()
    asyncio.run(dropped(stream))
    gc.collect()
    assert stream.is_closed


class OneReader(OneItem):
    """A stream that is read by one iterator at most, as those of answers are."""

    is_read = False

    def _deliver(self, deliver):
        if self.is_read:
            raise RuntimeError("the stream is being read already")
        self.is_read = True
        super()._deliver(deliver)


def test_an_iterator_that_cannot_begin_leaves_the_answer_alone():
    async def read(stream):
        first = AsyncItems(stream)
        with pytest.raises(RuntimeError, match="is being read already"):
            AsyncItems(stream)
        gc.collect()
        assert not stream.is_closed
        return await first.__anext__()

    stream = OneReader()
    with pytest.raises(RuntimeError, match="event loop"):
        AsyncItems(stream)
    gc.collect()
    assert not stream.is_closed
    assert asyncio.run(read(stream)) == "item"


def test_a_closed_stream_ends(strategy):
    with strategy.stream(QUESTION) as stream:
        next(stream)
    assert list(stream) == [] and stream.answer is None
    dropped = strategy.stream(QUESTION)
    next(dropped)
    del dropped
    gc.collect()
    # The models answer others.
    assert strategy.generate(QUESTION, max_tokens=4).usage["completion_tokens"] == 4


def test_other_threads_run_while_one_waits(strategy):
    """Python hands its lock over at waits only, so that the other thread runs within a call or not
    at all."""
    interval = sys.getswitchinterval()
    gate, ran = threading.Lock(), threading.Event()
    gate.acquire()
    thread = threading.Thread(target=lambda: gate.acquire() and ran.set())
    thread.start()
    sys.setswitchinterval(1000)
    try:
        gate.release()
        for _ in range(200):
            if ran.is_set():
                break
            strategy.generate(QUESTION, max_tokens=16)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert ran.is_set()


def test_threads_share_a_strategy(strategy):
    whole = strategy.generate(QUESTION)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(strategy.generate(QUESTION))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.tokens for answer in answers] == [whole.tokens] * 8


def is_object(text):
    return isinstance(json.loads(text)["n"], int)


@pytest.mark.parametrize(
    "constraint, is_met",
    [
        ({"json_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}, is_object),
        ({"json_schema": '{"type": "boolean"}'}, lambda text: text in ("true", "false")),
        ({"regex": "[ab]{3}"}, lambda text: re.fullmatch("[ab]{3}", text)),
        ({"choice": ["red", "green"]}, lambda text: text in ("red", "green")),
        ({"grammar": 'root ::= "yes" | "no"'}, lambda text: text in ("yes", "no")),
    ],
    ids=str,
)
def test_constraints_hold(strategy, constraint, is_met):
    answer = strategy.generate(QUESTION, max_tokens=60, **constraint)
    assert answer.finish_reason == "length" or is_met(answer.text), answer.text


def test_models_may_be_a_pair_or_a_list(base):
    with pytest.raises(ValueError, match="`pair` must be"):
        wsd.Strategy("wsd", pair="abacus")
    chain = wsd.Strategy("speculative", base=base, middle=[base, "builtin:base"], draft=None)
    alone = wsd.Strategy("base", base=base).generate(QUESTION, max_tokens=8)
    assert chain.generate(QUESTION, max_tokens=8).tokens == alone.tokens
