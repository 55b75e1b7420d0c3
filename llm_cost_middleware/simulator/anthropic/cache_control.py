"""Rules for cache marks in the Messages API, in its own words.

Sources: platform.claude.com, "Prompt caching" (four breakpoints, of which automatic caching takes one; the order of
lifetimes; a mark on the last block beside the automatic one must ask for the same lifetime) and "Tool use with prompt
caching" (deferred tools are no part of the prefix). The words of the refusals are those that their users quote.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .checks import bad_request

_MAX_MARKS = 4
_UNMARKABLE = frozenset({"thinking", "redacted_thinking"})


def check_marks(body: Mapping[str, Any]) -> None:
    """At most four marks, well formed, on blocks that can carry one, the longer lifetime first."""
    lifetimes: list[str] = []
    at_the_end: str | None = None
    for where, block in _markable(body):
        control = block.get("cache_control")
        at_the_end = None
        if control is None:
            continue
        if block.get("defer_loading"):
            raise bad_request(f"Tool '{block.get('name')}' cannot have both defer_loading=true and cache_control set.")
        if block.get("type") in _UNMARKABLE:
            raise bad_request(f"{where}.{block['type']}.cache_control: Extra inputs are not permitted")
        at_the_end = _lifetime(control, where)
        lifetimes.append(at_the_end)
    if body.get("cache_control") is not None:
        lifetime = _lifetime(body["cache_control"], "")
        if at_the_end not in {None, lifetime}:
            raise bad_request(
                "cache_control: the last block has a cache_control with a different ttl than the top-level one"
            )
        lifetimes.append(lifetime)
    if len(lifetimes) > _MAX_MARKS:
        raise bad_request(
            f"A maximum of {_MAX_MARKS} blocks with cache_control may be provided. Found {len(lifetimes)}."
        )
    if lifetimes != sorted(lifetimes):  # "1h" sorts before "5m"
        raise bad_request(
            "cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
            "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
        )


def _lifetime(control: Any, where: str) -> str:
    at = f"{where}.cache_control" if where else "cache_control"
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise bad_request(f"{at}.type: Input should be 'ephemeral'")
    extra = next((key for key in control if key not in {"type", "ttl"}), None)
    if extra:
        raise bad_request(f"{at}.ephemeral.{extra}: Extra inputs are not permitted")
    lifetime = control.get("ttl") or "5m"
    if lifetime not in {"5m", "1h"}:
        raise bad_request(f"{at}.ephemeral.ttl: Input should be '5m' or '1h'")
    return str(lifetime)


def _markable(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for at, tool in enumerate(body.get("tools") or ()):
        yield f"tools.{at}", tool
    if isinstance(body.get("system"), list):
        for at, block in enumerate(body["system"]):
            yield f"system.{at}", block
    for at, message in enumerate(body["messages"]):
        if not isinstance(message["content"], list):
            yield f"messages.{at}.content", {}
            continue
        for number, block in enumerate(message["content"]):
            where = f"messages.{at}.content.{number}"
            if block["type"] == "tool_result" and isinstance(block.get("content"), list):
                for part_at, part in enumerate(block["content"]):
                    yield f"{where}.tool_result.content.{part_at}", part
            yield where, block
