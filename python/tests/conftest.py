"""Models and the program for the tests.

`WSD_BIN` names the `wsd` program and `WSD_DATA` the folder of benchmark files; tests that need one
skip without it.
"""

import json
import os
import subprocess

import pytest

import wsd

QUESTION = "Where does the bread come from?"


@pytest.fixture(scope="session")
def strategy():
    """Weak-to-strong decoding by the built-in pair."""
    return wsd.Strategy("wsd")


@pytest.fixture(scope="session")
def base():
    """The built-in base."""
    return wsd.Engine("builtin:base")


@pytest.fixture(scope="session")
def program():
    """Runs the program and returns its output."""
    path = os.environ.get("WSD_BIN")
    if not path:
        pytest.skip("WSD_BIN does not name the wsd program")

    def run(*arguments):
        return subprocess.run([path, *arguments], check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture(scope="session")
def program_json(program):
    """Runs the program and returns the object it prints."""
    return lambda *arguments: json.loads(program(*arguments))
