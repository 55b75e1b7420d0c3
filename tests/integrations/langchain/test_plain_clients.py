"""A tool that calls a provider through a client that nobody wrapped is told of: once, by name, and nothing is run."""

from __future__ import annotations

import gc
from functools import partial

import openai
import pytest
from anthropic import AsyncAnthropic
from langchain.agents import create_agent
from langchain_core.tools import StructuredTool, tool
from typer.testing import CliRunner

from llm_cost_middleware import Budget, CostPipeline, cost_context
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.events import Ungoverned
from llm_cost_middleware.integrations.langchain import CostMiddleware
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.sdk_clients.unwrapped import alive, reached_by
from llm_cost_middleware.simulator import Answer, ToolCall

pytestmark = pytest.mark.usefixtures("forget_connections")
module_client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9")


@tool
def search(q: str) -> str:
    """Search with a client of the module."""
    return str(module_client.base_url) if q == "never" else "found"


@tool
def makes_one(q: str) -> str:
    """Make a client each time."""
    return str(AsyncAnthropic) if q == "never" else "found"


@tool
def innocent(q: str) -> str:
    """Call nobody."""
    return q


def enclosing(client):
    def ask(q: str) -> str:
        """Ask with a client that is enclosed."""
        return str(client.base_url) if q == "never" else "found"

    return ask


def test_what_a_function_reaches_is_told_by_name():
    assert [(one.name, one.kind) for one in reached_by(search.func)] == [("module_client", "openai.OpenAI")]
    assert [(one.name, one.kind) for one in reached_by(makes_one.func)] == [
        ("AsyncAnthropic", "anthropic.AsyncAnthropic")
    ]
    assert [one.advice for one in reached_by(partial(enclosing(module_client), q="x"))] == [
        "wrap it: wrap_openai(client)"
    ]
    assert reached_by(innocent.func) == ()
    assert reached_by(print) == ()


def test_a_wrapped_client_is_not_told_of():
    with CostPipeline({}) as pipeline:
        wrapped = wrap_openai(openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9"), pipeline)
        assert reached_by(enclosing(wrapped)) == ()


def test_an_agent_tells_once_for_each_tool_and_client_and_names_the_run(sim, claude):
    asked = iter(range(9))

    def answer(request):
        if next(asked) in {0, 2}:
            return Answer(tool_calls=(ToolCall("search", {"q": "x"}),))
        return Answer(text="done")

    sim.responder = answer
    events = []
    pipeline = CostPipeline({"budgets": [Budget("run:*", "1")]}, observers=[events.append])
    tools = [search, innocent, StructuredTool.from_function(enclosing(module_client), name="enclosed")]
    agent = create_agent(claude(), tools, middleware=[CostMiddleware(pipeline)])
    for run in ("one", "two"):
        with cost_context(run=run):
            agent.invoke({"messages": [("user", "secret words")]})
    told = [one for one in events if isinstance(one, Ungoverned)]
    assert [one.what for one in told] == [
        "module_client (openai.OpenAI) in the tool 'search' of run:one",
        "client (openai.OpenAI) in the tool 'enclosed' of run:one",
    ]
    assert {one.advice for one in told} == {"wrap it: wrap_openai(client)"}
    assert "secret" not in str(events)


def test_clients_that_live_are_found_and_those_behind_a_wrapped_one_are_not():
    gc.collect()
    before = len(list(alive()))
    plain = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9")
    with CostPipeline({}) as pipeline:
        wrapped = wrap_openai(openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9"), pipeline)
        assert len(list(alive())) == before + 1
        assert plain is not wrapped


def test_doctor_imports_an_application_and_names_its_plain_clients(tmp_path, monkeypatch):
    (tmp_path / "shop_app.py").write_text(
        "import openai\nfrom llm_cost_middleware.integrations.openai import wrap_openai\n"
        "plain = openai.OpenAI(api_key='k')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["doctor", "--app", "shop_app"], env={"COLUMNS": "200"})
    assert "openai.OpenAI" in found.output
    assert "wrap_openai" in found.output
    missing = CliRunner().invoke(app, ["doctor", "--app", "no_such_app"], env={"COLUMNS": "200"})
    assert "no_such_app" in missing.output
    assert not isinstance(missing.exception, ImportError)
