"""Cases of LangChain's OpenAI model against a running `wsd serve`: python langchain_client.py http://127.0.0.1:8080

Needs `pip install langchain-openai`; the server must run without a key, over the built-in pair.
"""

import sys
import typing

import pydantic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
MODEL = ChatOpenAI(model="wsd", base_url=f"{SERVER}/v1", api_key="none", max_retries=0, temperature=0, max_tokens=200)
FOX = "What colour is a fox?"
CASES = []


def case(function):
    CASES.append(function)
    return function


class Colour(pydantic.BaseModel):
    """The colour of a thing."""

    thing: typing.Literal["fox", "sky"]
    colour: typing.Literal["red", "blue"]


@tool
def lookup(thing: typing.Literal["fox", "sky"]) -> str:
    """Looks a colour up."""
    return "red" if thing == "fox" else "blue"


@case
def invoke():
    assert MODEL.invoke(FOX).content


@case
def stream():
    assert "".join(chunk.content for chunk in MODEL.stream(FOX)) == MODEL.invoke(FOX).content


@case
def structured_output_by_schema():
    assert isinstance(MODEL.with_structured_output(Colour, method="json_schema").invoke(FOX), Colour)


@case
def structured_output_by_function():
    assert isinstance(MODEL.with_structured_output(Colour, method="function_calling").invoke(FOX), Colour)


@case
def tools_offered():
    assert MODEL.bind_tools([lookup]).invoke(FOX) is not None


@case
def tools_forced_and_answered():
    asked = HumanMessage(FOX)
    answer = MODEL.bind_tools([lookup], tool_choice="any", parallel_tool_calls=False).invoke([asked])
    call, = answer.tool_calls
    assert call["name"] == "lookup"
    result = ToolMessage(lookup.invoke(call["args"]), tool_call_id=call["id"])
    assert MODEL.bind_tools([lookup]).invoke([asked, answer, result]) is not None


@case
def tools_forced_in_a_stream():
    chunks = MODEL.bind_tools([lookup], tool_choice="lookup", parallel_tool_calls=False).stream(FOX)
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"]["thing"] in ("fox", "sky")


def main():
    failed = 0
    for function in CASES:
        try:
            function()
        except Exception as error:  # each case is reported
            failed += 1
            print(f"FAILED {function.__name__}: {type(error).__name__}: {error}")
    print(f"{len(CASES) - failed} of {len(CASES)} cases passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
