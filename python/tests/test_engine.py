"""Engines: texts, tokens and scores."""

import numpy
import pytest

import wsd

QUESTION, ANSWER = "Where does the duck live?", "Thank you for asking me about the duck."


def test_properties(base):
    assert base.name == "builtin:base" and "score" in base.abilities
    assert base.max_len > 0 and base.vocab_size > max(base.end_tokens)
    assert repr(base) == '<wsd.Engine "builtin:base">'


def test_texts_and_tokens(base):
    tokens = base.tokenize(ANSWER)
    assert base.detokenize(tokens) == ANSWER == base.detokenize(numpy.array(tokens))
    assert base.tokenize(ANSWER, bos=True)[-len(tokens) :] == tokens
    messages = [{"role": "user", "content": QUESTION}]
    assert base.apply_chat_template(messages) == f"\n\n[User]\n{QUESTION}\n\n[Assistant]\n"
    own = wsd.Engine("builtin:draft", seat="draft").apply_chat_template(messages)
    assert QUESTION in own and own != base.apply_chat_template(messages)
    assert wsd.Engine("builtin:draft", template="plain").apply_chat_template(messages) == base.apply_chat_template(
        messages
    )


@pytest.mark.parametrize("settings", [{}, {"window": 3, "threshold": 0.5}], ids=str)
def test_scores_are_those_of_the_program(base, program_json, settings):
    score = base.score(QUESTION, ANSWER, **settings)
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    record = program_json("score", "--prompt", QUESTION, "--response", ANSWER, "--json", *options)
    assert score.logprobs.dtype == score.confidences.dtype == numpy.float64 and score.ids.dtype == numpy.int64
    assert score.ids.tolist() == [token["id"] for token in record["tokens"]]
    assert score.logprobs.tolist() == [token["logprob"] for token in record["tokens"]]
    confidences = [None if numpy.isnan(confidence) else confidence for confidence in score.confidences]
    assert confidences == [token["confidence"] for token in record["tokens"]]
    found = score.handover and {"at": score.handover.at, "confidence": score.handover.confidence}
    assert found == record["handover"]


def test_scores_agree_with_each_other(base):
    score = base.score("The duck", " lives here", raw=True)
    context, whole = base.tokenize("The duck", bos=True), base.tokenize("The duck lives here", bos=True)
    assert base.logprobs(whole, len(context)).tolist() == score.logprobs.tolist()
    (total, is_greedy), (_, greedy) = base.loglikelihoods(
        [(context, whole[len(context) :]), (context, greedy_tokens(base, context, 4))]
    )
    assert total == pytest.approx(score.total, abs=1e-9) and greedy and not is_greedy
    assert score.perplexity == pytest.approx(numpy.exp(-score.total / len(score.ids)))
    score.logprobs[0] = 0.0  # arrays are the caller's own


def greedy_tokens(base, context, count):
    """The most likely continuation."""
    answer = wsd.Strategy("base", base=base).generate(context, max_tokens=count)
    return [token.id for token in answer.tokens]


def test_a_long_context_loses_its_first_tokens(base):
    tokens = base.tokenize("the duck " * base.max_len)[: base.max_len + 50]
    [(total, _)] = base.loglikelihoods([(tokens[:-4], tokens[-4:])])
    assert total == pytest.approx(base.logprobs(tokens[-base.max_len :], base.max_len - 4).sum(), abs=1e-9)
