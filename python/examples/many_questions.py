"""Answers several questions at the same time with asyncio. The models batch them.

    python examples/many_questions.py
"""

import asyncio

import wsd

QUESTIONS = ["Where does the bread come from?", "Where does the duck live?", "What colour is the fox?"]


async def first_words(strategy: wsd.Strategy, question: str) -> str:
    """Reads an answer token by token up to the first full stop. Leaving the loop ends the answer."""
    text = ""
    with strategy.stream(question, max_tokens=64) as stream:
        async for token in stream:
            text += token.text
            if "." in text:
                break
    return text


async def main() -> None:
    strategy = wsd.Strategy("wsd")
    answers = await asyncio.gather(*(strategy.stream(question, max_tokens=64) for question in QUESTIONS))
    beginnings = await asyncio.gather(*(first_words(strategy, question) for question in QUESTIONS))
    for question, answer, beginning in zip(QUESTIONS, answers, beginnings):
        print(f"{question}\n  {answer.text}\n  first sentence: {beginning.strip()}")
        assert answer.text.startswith(beginning.split(".")[0].lstrip())


asyncio.run(main())
