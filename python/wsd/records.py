"""Records: the events of an answer, whole answers, and scores."""

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy
from numpy.typing import NDArray

Message = Mapping[str, Any]
"""A message of a conversation: `{"role": "system" | "user" | "assistant", "content": text}`."""

PromptLike = Union[str, Sequence[Message], Sequence[int], NDArray[Any]]
"""A text, which is a user's message unless `raw` is set; a conversation; or token ids."""


class Prompt(NamedTuple):
    """Event: the prompt was rendered."""

    tokens: int
    """Tokens in the prompt."""


class Token(NamedTuple):
    """Event: a token that is certain to be kept."""

    id: int
    """The id in the vocabulary of the strategy's output model."""
    text: str
    """The text that the token adds; empty for a token that ends within a character."""
    author: str
    """The seat of the model that wrote it (`draft`, `base`), or `fused` for several together."""
    logprob: Optional[float]
    """The natural log-probability under the plain softmax of the output model."""
    confidence: Optional[float]
    """The geometric mean of the base's probabilities over the window that ends here; `None` before
    the first full window and after the hand-over."""
    repeats: bool
    """True where the window reached the threshold and did not count, because it repeats the text
    just before it."""
    switch: Optional[float]
    """The learned probability that the base continues well from here; `None` without a learned
    switch."""
    top: List[Tuple[int, float]]
    """The most likely tokens here with their log-probabilities, as many as `top_logprobs`."""


class Handover(NamedTuple):
    """Event: the base takes over after the last token."""

    at: int
    """0-based index of the token at which the window passed."""
    confidence: float
    """The window's geometric mean there."""
    window: int
    """Tokens in the window."""
    threshold: float
    """The threshold that was reached."""


class Call(NamedTuple):
    """Event: a call of a model ended."""

    to: str
    """The seat of the model."""
    kind: str
    """`generate`, `score` or `check`."""
    tokens: int
    """Tokens written or scored."""
    seconds: float
    """Duration in seconds."""
    accepted: Optional[int]
    """Proposed tokens that the base confirmed, for a check."""


class DraftEnd(NamedTuple):
    """Event: the draft ended after the last token, and no window had passed."""

    at: int
    """Number of tokens of the answer up to the end of the draft."""
    reason: str
    """`stop` at the draft's end-of-text token, `length` at a limit."""


class Look(NamedTuple):
    """Event: the draft was asked in the middle of the base's text (a second look)."""

    at: int
    """0-based index of the token before which it was asked."""
    text: str
    """The text that the draft would write."""
    taken: bool
    """True if the draft writes on from here."""


class Reused(NamedTuple):
    """Event: the output model read a part of the prompt from its prefix cache."""

    tokens: int
    """Tokens of the prompt that were not computed."""


class StopString(NamedTuple):
    """Event: the answer ends before a stop string."""

    text: str
    """The stop string."""


class Done(NamedTuple):
    """Event: the answer is complete. This is always the last event."""

    reason: str
    """`stop` at an end-of-text token or a stop string, `length` at a limit."""


Event = Union[Prompt, Token, Handover, DraftEnd, Look, Call, Reused, StopString, Done]
"""An item of `Strategy.events`."""


@dataclass(frozen=True)
class Answer:
    """A whole answer: the object that `wsd generate --json` prints."""

    text: str
    """The answer's text."""
    tokens: List[Token] = field(repr=False)
    """The tokens; their texts, joined, are `text`."""
    handover: Optional[Handover]
    """The hand-over, if the base took over."""
    draft_end: Optional[DraftEnd]
    """The end of the draft, if it ended before a window passed."""
    finish_reason: str
    """`stop` at an end-of-text token or a stop string, `length` at a limit."""
    stop_string: Optional[str]
    """The stop string that ended it, if one did."""
    looks: List[Look] = field(repr=False)
    """The second looks, in order."""
    usage: Dict[str, int]
    """Tokens of the prompt, of the answer, and by author."""
    timings: Dict[str, float] = field(repr=False)
    """Seconds in total, to the first token, and by model."""
    calls: List[Call] = field(repr=False)
    """The calls of the models, in order."""

    @classmethod
    def from_json(cls, text: str) -> "Answer":
        """Reads the object that `wsd generate --json` prints."""
        record = json.loads(text)
        handover, draft_end = record["handover"], record.get("draft_end")
        return cls(
            text=record["text"],
            tokens=[_token(token) for token in record["tokens"]],
            handover=handover and Handover(*(handover[name] for name in Handover._fields)),
            draft_end=draft_end and DraftEnd(*(draft_end[name] for name in DraftEnd._fields)),
            looks=[Look(*(look[name] for name in Look._fields)) for look in record.get("looks", [])],
            finish_reason=record["finish_reason"],
            stop_string=record.get("stop_string"),
            usage=record["usage"],
            timings=record["timings"],
            calls=[Call(*(call.get(name) for name in Call._fields)) for call in record["calls"]],
        )


def _token(record: Dict[str, Any]) -> Token:
    top = [(token, logprob) for token, logprob in record.get("top", [])]
    return Token(
        id=record["id"],
        text=record["text"],
        author=record["by"],
        logprob=record["logprob"],
        confidence=record["confidence"],
        repeats=record.get("repeats", False),
        switch=record.get("switch"),
        top=top,
    )


@dataclass(frozen=True, eq=False)
class Score:
    """A response as the base scores it."""

    ids: NDArray[numpy.int64]
    """The response's token ids."""
    logprobs: NDArray[numpy.float64]
    """Their natural log-probabilities under the plain softmax."""
    confidences: NDArray[numpy.float64]
    """The geometric mean of the probabilities over the window that ends at each token; NaN before
    the first full window."""
    handover: Optional[Handover]
    """The position at which the base would take over, if there is one."""

    @property
    def total(self) -> float:
        """The log-probability of the whole response."""
        return float(self.logprobs.sum())

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability."""
        return float(numpy.exp(-self.logprobs.mean()))


class StrategyInfo(NamedTuple):
    """An entry of the table of strategies."""

    name: str
    """The name, for `Strategy(name)`."""
    about: str
    """One line about it."""
    seats: List[str]
    """The seats for models, which are keyword arguments of `Strategy`; with some settings not all are filled."""
    settings: Dict[str, str]
    """The strategy's settings, which are keyword arguments of `Strategy`: meaning, limits, default."""
