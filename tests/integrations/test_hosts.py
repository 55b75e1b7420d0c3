"""A step that was forgotten when a host was added is found here. What a host must do: ``integrations/__init__``."""

import re
from importlib import import_module
from inspect import isroutine, signature
from pathlib import Path

import pytest

from llm_cost_middleware import integrations
from llm_cost_middleware.cli import doors

TESTS = Path(__file__).parent
HOSTS = {"anthropic": "sdk", "openai": "sdk", "langchain": "langchain", "litellm": "litellm"}
"""The folder with the tests of each host: its way of calling and ending, and a race."""


def test_every_host_has_its_tests():
    packages = {path.parent.name for path in Path(integrations.__file__).parent.glob("*/__init__.py")}
    assert packages == HOSTS.keys()
    for folder in set(HOSTS.values()):
        assert (TESTS / folder / "conftest.py").is_file()
        assert (TESTS / folder / "test_race.py").is_file(), f"{folder}: who stops the calls that do not fit?"


@pytest.mark.parametrize("host", [pytest.param(one, marks=[pytest.mark.litellm] * (one == "litellm")) for one in HOSTS])
def test_every_entry_of_a_host_takes_a_pipeline_or_finds_the_default(host):
    pytest.importorskip(host, reason=f"needs the host: {host}")
    package = import_module(f"llm_cost_middleware.integrations.{host}")
    entries = [getattr(package, name) for name in package.__all__]
    shapes = [signature(one).parameters for one in entries if isroutine(one) or isinstance(one, type)]
    taken = [shape["pipeline"] for shape in shapes if "pipeline" in shape]
    assert taken
    assert all(parameter.default is None for parameter in taken)


@pytest.mark.parametrize("host", HOSTS)
def test_doctor_and_the_readme_know_every_host(host):
    names = import_module(f"llm_cost_middleware.integrations.{host}").__all__
    assert f"integrations.{host} import" in Path(doors.__file__).read_text(encoding="utf-8")
    readme = TESTS.parents[1].joinpath("README.md").read_text(encoding="utf-8")
    section = readme.split("## One line for each host")[1].split("\n## ")[0]
    assert any(re.search(rf"\b{name}\b", section) for name in names)
