"""Weak-to-Strong Decoding: a small aligned model opens the answer, a large base model finishes it.

>>> import wsd
>>> strategy = wsd.Strategy("wsd")  # the built-in pair
>>> strategy.generate("Where does the bread come from?", max_tokens=8).usage["completion_tokens"]
8

`Engine` opens one model, `Strategy` answers with one or several, `strategies` lists the ways to do
so. Keyword arguments are the settings of the command line by their own names. Wrong arguments raise
`ValueError` or `TypeError`, failures of models and files `wsd.Error`.
"""

from typing import Any

from ._wsd import Engine, Error, Strategy, Stream, __version__, strategies
from .records import (
    Answer,
    Call,
    Done,
    DraftEnd,
    Event,
    Handover,
    Look,
    Message,
    Prompt,
    PromptLike,
    Reused,
    Score,
    StopString,
    StrategyInfo,
    Token,
)

__all__ = [
    "Answer",
    "Call",
    "Done",
    "DraftEnd",
    "Engine",
    "Error",
    "Event",
    "Handover",
    "Look",
    "Message",
    "Prompt",
    "PromptLike",
    "Reused",
    "Score",
    "StopString",
    "Strategy",
    "StrategyInfo",
    "Stream",
    "Token",
    "__version__",
    "generate",
    "strategies",
]


def generate(prompt: PromptLike, strategy: str = "wsd", **settings: Any) -> Answer:
    """Opens the models, answers one prompt, and closes them.

    The settings are those of `Strategy`: `base`, `draft`, `max_tokens`, `temperature` and so on.
    """
    return Strategy(strategy, **settings).generate(prompt)
