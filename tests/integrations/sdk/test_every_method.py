"""Every method of every client class of the installed SDKs: governed, reported, metered, or free for a reason.

A method that is new in an SDK, and whose path or name no table has, fails here; at runtime it is reported.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

import anthropic
import openai
import pytest

from llm_cost_middleware.cli.help import topics
from llm_cost_middleware.integrations.anthropic.convert import API as ANTHROPIC
from llm_cost_middleware.integrations.openai.convert import API as OPENAI
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.sdk_clients import govern

VERBS = {"_get": "get", "_post": "post", "_put": "put", "_patch": "patch", "_delete": "delete", "_get_api_list": "get"}
CLIENT_METHODS = {
    "close", "copy", "delete", "get", "get_api_list", "is_closed", "patch", "platform_headers", "post", "put",
    "request", "with_middleware", "with_options",
}  # fmt: skip
"""Of the client itself; what sends of them ends in ``request``, and what makes a client in ``copy``."""
AWS = {"aws_region": "us-east-1", "aws_access_key": "a", "aws_secret_key": "b"}
AZURE = {"api_key": "k", "azure_endpoint": "https://x.openai.azure.com", "api_version": "2024-10-21"}
VERTEX = {"region": "europe-west4", "project_id": "p", "access_token": "t"}
MADE = {
    "OpenAI": {"api_key": "k"}, "AzureOpenAI": AZURE, "Anthropic": {"api_key": "k"}, "AnthropicBedrock": AWS,
    "AnthropicBedrockMantle": {"aws_region": "us-east-1", "api_key": "k"}, "AnthropicVertex": VERTEX,
}  # fmt: skip
CLIENTS = [
    (api, f"{beginning}{name}", options)
    for name, options in MADE.items()
    for api in [OPENAI if name.endswith("OpenAI") else ANTHROPIC]
    for beginning in ("", "Async")
]
every = pytest.mark.parametrize(("api", "name", "options"), CLIENTS, ids=[name for _, name, _ in CLIENTS])


@pytest.fixture
def pipeline():
    with CostPipeline({}) as opened:
        yield opened


def client_of(api, name, options):
    return getattr({"openai": openai, "anthropic": anthropic}[api.provider], name)(**options)


def resources(owner, path=""):
    """Every resource below a client, by its dotted path."""
    held = {name: value for name, value in list(vars(owner).items()) if hasattr(value, "_client")}
    for name in sorted({*dir(type(owner)), *held}):
        kind = inspect.getattr_static(type(owner), name, None)
        offered = name in held or isinstance(kind, property) or type(kind).__name__ == "cached_property"
        if name.startswith(("_", "with_")) or not offered:
            continue
        found = getattr(owner, name)
        if "_client" in vars(type(found)).get("__annotations__", {}) or "_client" in getattr(found, "__dict__", {}):
            below = f"{path}.{name}".lstrip(".")
            yield below, found
            yield from resources(found, below)


def methods(resource):
    for name in dir(type(resource)):
        found = inspect.getattr_static(type(resource), name)
        if not name.startswith(("_", "with_")) and inspect.isfunction(found):
            yield name, found


def routes(method):
    """The verbs and paths that a method asks for by itself."""
    for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in VERBS:
            path = call.args[0].args[0] if isinstance(call.args[0], ast.Call) else call.args[0]
            text = path.value if isinstance(path, ast.Constant) else ast.unparse(path).strip("f\"'")
            yield VERBS[call.func.attr], re.sub(r"\{[^}]*\}", "x", text).partition("?")[0]


def test_every_class_that_is_wrapped_is_looked_at():
    assert {name for _, name, _ in CLIENTS} == {
        *OPENAI.clients, *OPENAI.platforms, *ANTHROPIC.clients, *ANTHROPIC.platforms
    }  # fmt: skip


@every
def test_every_method_is_in_a_table(api, name, options):
    client, seen, unknown = client_of(api, name, options), 0, []
    assert {method for method, _ in methods(client)} | {"with_options"} <= CLIENT_METHODS
    for path, resource in resources(client):
        for method, function in methods(resource):
            seen += 1
            asked = list(routes(function))
            dotted = f"{path}.{method}"
            if not asked:
                known = dotted in api.helpers or (method == "connect" and path in api.sockets)
                unknown += [] if known else [dotted]
            unknown += [
                f"{dotted}: {verb} {route}"
                for verb, route in asked
                if "not known here" in api.treatment(verb, route).why
            ]
    assert unknown == [], unknown
    assert seen >= {"OpenAI": 200, "Anthropic": 60}.get(name.removeprefix("Async").removeprefix("Azure"), 8)


@every
def test_every_resource_of_a_wrapped_client_sends_through_what_is_governed(api, name, options, pipeline):
    client = govern(client_of(api, name, options), pipeline, api, routed="smart")
    count = 0
    for made in (client, client.with_options(timeout=9), client.copy()):
        assert {"post", "get", "request"} <= vars(made).keys()
        for _, resource in resources(made):
            count += 1
            assert resource._client is made
            assert (resource._post, resource._get) == (made.post, made.get)
            # the others end in the ``request`` of the client that they are bound to
            assert resource._delete.__self__ is resource._patch.__self__ is made
            assert resource._get_api_list.__self__ is made
            for view in ("with_raw_response", "with_streaming_response"):
                shown = vars(getattr(resource, view, resource)).values()  # some have none
                assert all(held is resource for held in list(shown) if type(held) is type(resource))
    assert count >= 3


def test_the_tables_are_shown():
    text = topics()["methods"]
    assert len(text.splitlines()[0]) < 60
    for api in (OPENAI, ANTHROPIC):
        for path in (*api.endpoints, *api.ungoverned, *(one for paths in api.free.values() for one in paths)):
            assert path in text, path
        for named in (*api.sockets, *api.helpers, *api.clients, *api.platforms):
            assert f"`{named}" in text, named
