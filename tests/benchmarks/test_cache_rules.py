"""The rivals of the replay are what the libraries really do: their marks, read off their own code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "cache_replay"
TOOL = {"description": "d", "input_schema": {"type": "object", "properties": {}}}
BODY = {
    "tools": [{"name": "f", **TOOL}, {"name": "g", **TOOL}],
    "system": [{"type": "text", "text": "sys"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [{"type": "text", "text": "q2"}]},
    ],
}


@pytest.fixture
def rules():
    sys.path.insert(0, str(FOLDER))
    try:
        import rules

        yield rules
    finally:
        sys.path.remove(str(FOLDER))


def marks(body):
    """Where marks stand: the top, or (section, position)."""
    found = ["top"] if "cache_control" in body else []
    found += [("tools", at) for at, tool in enumerate(body.get("tools") or ()) if "cache_control" in tool]
    messages = [{"role": "system", "content": body.get("system") or []}, *body["messages"]]
    for at, message in enumerate(messages):
        content = message["content"] if isinstance(message["content"], list) else []
        if any("cache_control" in block for block in (message, *content)):
            found.append(("messages", at))
    return found


def test_langchain(rules):
    pytest.importorskip("langchain", reason="needs the langchain extra")
    from langchain.agents.middleware import ModelRequest
    from langchain_anthropic import ChatAnthropic
    from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
    from langchain_core.tools import StructuredTool

    tools = [StructuredTool.from_function(lambda: "", name=name, description="d") for name in "fg"]
    request = ModelRequest(
        model=ChatAnthropic(model="claude-sonnet-4-6", api_key="k", max_tokens=100),
        messages=[HumanMessage("q"), AIMessage("a"), HumanMessage("q2")],
        system_message=SystemMessage("sys"),
        tools=tools,
        tool_choice=None,
        response_format=None,
        state={},
        runtime=None,
    )
    sent = {}

    def handler(request):
        bound = request.model.bind_tools(request.tools, **request.model_settings)
        sent.update(bound.bound._get_request_payload([request.system_message, *request.messages], **bound.kwargs))

    AnthropicPromptCachingMiddleware().wrap_model_call(request, handler)
    assert marks(sent) == marks(rules.langchain(BODY)) == ["top", ("tools", 1), ("messages", 0)]


@pytest.mark.litellm
def test_litellm(rules):
    from litellm.integrations.anthropic_cache_control_hook import AnthropicCacheControlHook

    messages = [{"role": "system", "content": "sys"}, *BODY["messages"]]
    sent = AnthropicCacheControlHook.messages_with_default_injections(
        messages, ["anthropic/claude-sonnet-4-6"], enable_prompt_caching=True
    )
    marked = [("messages", at) for at, message in enumerate(sent) if "cache_control" in str(message)]
    assert marked == marks(rules.litellm(BODY)) == [("messages", 0), ("messages", 3)]
