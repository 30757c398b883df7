"""Exceptions, and their hints."""

import os
import signal
import threading
import time

import pytest

import wsd


@pytest.mark.parametrize(
    "call, kind, parts",
    [
        (lambda: wsd.Strategy("magic"), ValueError, ["`magic`", "hint: known are wsd, base"]),
        (lambda: wsd.Strategy("wsd", window=0), ValueError, ["`window` must be a whole number from 1", "got 0"]),
        (lambda: wsd.Strategy("wsd", window=1.5), ValueError, ["`window` must be a whole number", "got 1.5"]),
        (lambda: wsd.Strategy("wsd", window=[{}]), TypeError, ["`window` must be a whole number", "got list"]),
        (lambda: wsd.Strategy("base", window=4), TypeError, ["`window`", "hint: known are max_tokens"]),
        (
            lambda: wsd.Strategy("wsd", base="builtin:base"),
            ValueError,
            ["needs a draft model", "hint: give one with draft"],
        ),
        (lambda: wsd.Engine("builtin:nothing"), ValueError, ["`builtin:nothing`", "hint: there are builtin:base"]),
        (lambda: wsd.Engine("no such model"), ValueError, ["`no such model` is not a model", "hint: give a folder"]),
        (lambda: wsd.Engine("builtin:base", device="abacus"), ValueError, ["`device` must be", "got abacus"]),
        (lambda: wsd.Engine("builtin:base", seat="boss"), ValueError, ["`boss`", "hint: known are draft, base"]),
        (lambda: wsd.Engine("builtin:base", window=3), TypeError, ["`window`", "hint: known are template"]),
        (lambda: wsd.Engine(os.path.dirname(__file__)), wsd.Error, ["cannot be loaded", "because:"]),
    ],
)
def test_faults_of_construction(call, kind, parts):
    with pytest.raises(kind) as caught:
        call()
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize(
    "prompt, settings, kind, part",
    [
        ("hi", {"max_tokens": 0}, ValueError, "`max_tokens` must be"),
        ("hi", {"temperature": -1}, ValueError, "`temperature` must be"),
        ("hi", {"window": 3}, TypeError, "unexpected keyword argument `window`"),
        ("hi", {"raw": True, "system": "Be brief."}, ValueError, "`raw`"),
        ([], {}, ValueError, "the conversation has no message"),
        ([{"role": "king", "content": "hi"}], {}, ValueError, "`prompt` is not a conversation"),
        ([{"role": "user"}], {}, ValueError, "missing field `content`"),
        (3.5, {}, ValueError, "`prompt` is not a conversation"),
        (object(), {}, TypeError, "`prompt` must not be of type object"),
        ("hi", {"regex": "a", "choice": ["a"]}, TypeError, "`choice` must be left out with `regex`"),
        ("hi", {"json_schema": "[]"}, ValueError, "`json_schema` must be a JSON schema"),
        ("hi", {"regex": "("}, ValueError, "`regex`"),
        ([99999999], {}, ValueError, "outside the vocabulary"),
        ([1] * 100000, {}, ValueError, "the context of"),
    ],
)
def test_faults_of_prompts(strategy, prompt, settings, kind, part):
    for call in [strategy.generate, lambda *args, **kwargs: list(strategy.stream(*args, **kwargs))]:
        with pytest.raises(kind) as caught:
            call(prompt, **settings)
        assert part in str(caught.value)


def test_faults_of_scores(base):
    for start in [0, 2]:
        with pytest.raises(ValueError, match="`start` must be"):
            base.logprobs([1, 2], start)
    with pytest.raises(ValueError, match="the response adds no token"):
        base.score("hi", "")
    assert issubclass(wsd.Error, Exception) and not issubclass(wsd.Error, ValueError)


def interrupt_soon():
    """Sends this process Ctrl-C's signal in a moment."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.fixture
def handled_interrupts():
    """Ctrl-C as in a terminal: a shell's background jobs begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handled_interrupts")
@pytest.mark.parametrize("read", ["generate", "stream"])
def test_ctrl_c_ends_an_answer(strategy, read):
    timer = interrupt_soon()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        while True:
            # The context ends an answer before long; another one follows.
            result = getattr(strategy, read)("the", raw=True, max_tokens=1000000, temperature=5.0)
            if read == "stream":
                for _ in result:
                    pass
    timer.join()
    assert time.monotonic() - started < 60
    assert strategy.generate("Where does the duck live?", max_tokens=4).usage["completion_tokens"] == 4
