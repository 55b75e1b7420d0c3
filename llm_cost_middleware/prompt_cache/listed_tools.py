"""Tools of a request in the order in which they stand in its prompt."""

from __future__ import annotations

from msgspec import Struct

from llm_cost_middleware.request import CallRequest

_UNMARKED_TOOLS = ("tool_search_tool", "mcp")
"""Server tools that are left without our marks: they stand for tools that may all be deferred."""


class _ListedTool(Struct, frozen=True, gc=False):
    """Tool in the order of the caller's list."""

    place: int
    text: str
    mark: str | None
    markable: bool


def listed_tools(request: CallRequest) -> list[_ListedTool]:
    """Return the tools that are in the prompt, in its order; what the caller's list does not have stands behind it.

    Deferred tools are not included in the prefix (Anthropic, "Tool use with prompt caching").
    """
    listed = [
        _ListedTool(at if tool.place < 0 else tool.place, tool.text, tool.cache_ttl, markable=True)
        for at, tool in enumerate(request.tools)
        if not tool.deferred
    ]
    # Only the Messages API is known to take a mark on a tool that it runs itself; LiteLLM drops some of them.
    direct = request.endpoint == "messages"
    for server_tool in request.server_tools:
        kind, place = server_tool.kind, server_tool.place
        markable = direct and place >= 0 and not kind.startswith(_UNMARKED_TOOLS)
        end = len(request.tools) + len(request.server_tools)
        listed.append(_ListedTool(end if place < 0 else place, kind, server_tool.cache_ttl, markable))
    if request.server_tools:
        listed.sort(key=lambda each: each.place)
    return listed
