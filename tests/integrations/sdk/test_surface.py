"""Every path that a resource of the installed SDKs posts to is governed, billed and reported, or free for a reason."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import httpx
import pytest

from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.integrations.anthropic.convert import API as ANTHROPIC
from llm_cost_middleware.integrations.openai.convert import API as OPENAI

both = pytest.mark.parametrize(("api", "least"), [(ANTHROPIC, 90), (OPENAI, 100)], ids=["anthropic", "openai"])
WRITES = {"_post", "_put", "_patch", "_request", "post", "put", "patch", "request"}


def posted(sdk: str) -> dict[str, str]:
    """The paths that resources of an SDK write to, an id in them written ``*``, and a place where each stands."""
    folder = Path(importlib.import_module(sdk).__file__).parent
    found = {}
    for file in folder.joinpath("resources").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in WRITES:
                assert call.func.attr == "_post", f"{file}:{call.lineno} writes by another verb than POST"
                path = call.args[0].args[0] if isinstance(call.args[0], ast.Call) else call.args[0]
                text = path.value if isinstance(path, ast.Constant) else ast.unparse(path).strip("f\"'")
                found[re.sub(r"\{[^}]*\}", "*", text).partition("?")[0]] = f"{file.relative_to(folder)}:{call.lineno}"
    return found


def is_listed(patterns, path: str) -> bool:
    """An id only stands where a pattern has one: the name of a new resource is never taken for the id of an old one."""
    return any(re.fullmatch(re.escape(one).replace(r"\*\*", ".+").replace(r"\*", r"\*"), path) for one in patterns)


@both
def test_every_path_of_the_installed_sdk_is_classified(api, least):
    paths = posted(api.provider)
    assert len(paths) >= least
    known = [
        *api.endpoints,
        api.batches.path,
        *api.ungoverned,
        *(one for patterns in api.free.values() for one in patterns),
    ]
    assert {path: place for path, place in paths.items() if not is_listed(known, path)} == {}


@both
def test_no_path_is_both_governed_and_something_else(api, least):
    for path in posted(api.provider):
        if path not in api.endpoints and path != api.batches.path:
            listed = [table for table in (api.ungoverned, *api.free.values()) if is_listed(table, path)]
            assert (api.advice_for(path.replace("*", "x")) is None) == (not is_listed(api.ungoverned, path)), path
            assert listed, path


@pytest.mark.parametrize(
    ("api", "given", "path"),
    [
        (OPENAI, "/v1/chat/completions", "/chat/completions"),
        (OPENAI, "https://host/gateway/v1/decisions?x=1", "/decisions"),
        (OPENAI, "responses", "/responses"),
        (OPENAI, "/chat/completions/v1", "/chat/completions/v1"),
        (ANTHROPIC, "https://host/v1/messages?beta=true", "/v1/messages"),
        (ANTHROPIC, "v1/sessions", "/v1/sessions"),
        (OPENAI, "/uploads/../chat/completions", "/chat/completions"),
        (OPENAI, "/uploads/%2e%2e/responses", "/responses"),
        (OPENAI, "/chat//completions", "/chat/completions"),
        (OPENAI, "//uploads/chat/completions", "/chat/completions"),
        (OPENAI, "/chat/completions#/cancel", "/chat/completions"),
        (ANTHROPIC, "/v1/memory_stores/x/../../messages", "/v1/messages"),
    ],
)
def test_a_path_is_known_in_any_spelling(api, given, path):
    assert api.canonical(given) == path


def test_an_unknown_path_may_be_billed():
    for path in ("/oracles", "/agents/sessions/x/oracles", "/embeddings/x"):
        assert "not known here" in OPENAI.advice_for(path)


def test_new_ways_to_spend_are_refused_and_free_ones_pass(make_harness, clients):
    harness = make_harness(on_ungoverned="deny")
    wrapped = harness.wrap(clients)["openai"]
    spending = {"/responses/compact", "/decisions", "/live/sessions", "/agents/sessions", "/containers", "/oracles"}
    for path in spending:
        with pytest.raises(UnsupportedRequestError, match=f"POST {path}"):
            wrapped.post(path, body={}, cast_to=httpx.Response)
    assert harness.sim.request_count == 0
    import openai

    for path in ("/agents", "/threads/t/runs/r/cancel"):  # the simulator knows none of them
        with pytest.raises(openai.NotFoundError):
            wrapped.post(path, body={}, cast_to=object)
