"""Light to use: a door imports its own host and no other, and needs no host but its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import lone_doors
import pytest

import llm_cost_middleware
from llm_cost_middleware.cli.doors import DOORS as DOCTORS
from llm_cost_middleware.integrations import anthropic, langchain, litellm, openai
from llm_cost_middleware.simulator import Simulator

PACKAGE = Path(llm_cost_middleware.__file__).parent
HOSTS = (anthropic, langchain, litellm, openai)
ALWAYS = {"genai_prices", "msgspec", "tiktoken", "httpx2"}
"""Prices, vocabularies and structures are no host; ``httpx2`` is the way of genai-prices to newer prices."""
LONG = {"langchain-google-vertexai", "ChatLiteLLMRouter", "langchain-aws", "guard, ChatAnthropic", "scikit-learn"}
FOUR = ("anthropic", "langchain_core", "litellm", "openai")
LIGHT = {
    "anthropic": ("a ledger", "price_response", "wrap_anthropic", "wrap_openai", "guard, ChatOpenAI"),
    "langchain_core": ("a ledger", "wrap_anthropic", "wrap_openai", "CostCallbackHandler"),
    "litellm": ("a ledger", "wrap_anthropic", "wrap_openai", "guard, ChatOpenAI",
                "CostAwareRouter", "CostLogger", "the proxy's callback"),
    "openai": ("a ledger", "price_response", "wrap_anthropic", "guard, ChatAnthropic", "CostAwareRouter"),
}  # fmt: skip
"""Doors that are tried where a host is not installed: those that it is for, and a sample of the others."""
SAID_BY = {
    ("langchain_core", "CostCallbackHandler"): "CostCallbackHandler",
    ("litellm", "CostAwareRouter"): "CostAwareRouter",
    ("litellm", "CostLogger"): "CostLogger",
    ("litellm", "the proxy's callback"): "the callback of the LiteLLM proxy",
    ("openai", "CostAwareRouter"): "CostAwareRouter",
}
"""The doors that say what they need. Whoever gives a client of a missing SDK has failed before he comes to a door."""


@pytest.fixture(scope="module")
def urls():
    with Simulator() as sim:
        yield {"openai_url": sim.openai_url, "anthropic_url": sim.anthropic_url}


def alone(urls, doors, gone=()):
    """Each door in a process of its own, without the packages that are gone."""
    settings = {**urls, "doors": list(doors), "gone": list(gone)}
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, lone_doors.__file__, json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    assert {one["door"] for one in found} == set(doors), done.stderr
    return {one["door"]: one for one in found}


def test_every_door_of_every_host_is_tried():
    kinds = {path.parent.name for path in (PACKAGE / "integrations").glob("*/__init__.py")}
    assert kinds == {host.__name__.rpartition(".")[2] for host in HOSTS}
    public = {f"{host.__name__.rpartition('.')[2]}.{name}" for host in HOSTS for name in host.__all__}
    assert public == {name for door in lone_doors.DOORS.values() for name in door.names}
    assert DOCTORS.keys() == {door.package for door in lone_doors.DOORS.values() if door.package}


def installed(door):
    return all(find_spec(host.partition(".")[0]) for host in door.hosts)


def can_be_tried(name, gone):
    """What it needs besides is there, as everywhere but in a slim installation; or it comes to say what is gone."""
    needs = [host.partition(".")[0] for host in lone_doors.DOORS[name].hosts]
    needs = needs[:1] if (gone, name) in SAID_BY else needs
    return all(find_spec(host) for host in needs if host != gone)


def test_a_door_imports_its_own_host_and_no_other(urls):
    alone_and_right(urls, lone_doors.DOORS.keys() - LONG)


@pytest.mark.soak
def test_a_door_whose_host_takes_long_imports_no_other(urls):
    alone_and_right(urls, LONG)


def alone_and_right(urls, names):
    doors = [name for name in names if installed(lone_doors.DOORS[name])]
    assert len(doors) == len(names) or not os.environ.get("CI"), "every extra is to be installed"
    found = alone(urls, doors)
    assert not {name: one["trace"] for name, one in found.items() if one["error"]}
    assert not {name: beyond for name, one in found.items() if (beyond := set(one["beyond"]) - ALWAYS)}


@pytest.mark.parametrize("package", FOUR)
def test_without_one_host_the_others_work_and_its_own_door_says_what_it_needs(urls, package):
    for name, one in alone(urls, [name for name in LIGHT[package] if can_be_tried(name, package)], [package]).items():
        door = lone_doors.DOORS[name]
        if (package, name) in SAID_BY:
            assert one["error"] == "MissingExtraError", one
            wanted = (
                rf"{SAID_BY[package, name]} needs the package {package}: pip install '{package.replace('_', '-')}.*'"
            )
            assert re.fullmatch(wanted, one["text"]), one["text"]
        elif package in door.hosts:
            assert one["error"] == "ModuleNotFoundError", one  # the caller's own import of it
        else:
            assert not one["error"], one["trace"]
