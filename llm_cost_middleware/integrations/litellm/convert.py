"""One call of a LiteLLM router: keyword arguments to a request, and an attempt back to keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.integrations.litellm.groups import Group, Groups
from llm_cost_middleware.integrations.litellm.usage import FREE, is_cached, read_answer, read_chunks
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers import NAMES, get_provider, strip_foreign_cache_fields
from llm_cost_middleware.request import Attempt, CallRequest, Endpoint, ModelRef
from llm_cost_middleware.sdk_clients.bodies import plain
from llm_cost_middleware.usage import UsageReport

_METADATA = ("metadata", "litellm_metadata")
RESENDING = (
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "max_fallbacks",
    "retry_policy",
    "model_group_retry_policy",
    "retry_strategy",
)
"""Keyword arguments by which LiteLLM would send a request again: that is decided here, once."""
GOVERNED = "llm_cost_governed"
"""Stands in LiteLLM's own metadata of a call that is governed, so that a ``CostLogger`` does not book it again."""
_TIMEOUTS = ("timeout", "request_timeout", "stream_timeout")


class RouterCall(NamedTuple):
    """A call in the neutral view, and what is needed to send it."""

    endpoint: Endpoint
    arguments: Mapping[str, Any]
    """Plain keyword arguments, ``model`` and messages included, ``llm_cost`` taken out."""
    request: CallRequest
    group: Group | None
    """The group that was called by its name; ``None`` where the call is routed."""
    serving: Mapping[ModelRef, str]
    providers: frozenset[str]
    """What the router can reach: every model it serves, or the provider of the group that was called."""
    own_timeout: bool
    switches: Mapping[str, Any]
    """What turns LiteLLM's own retries off on this endpoint."""

    def rendered(self, attempt: Attempt) -> dict[str, Any]:
        """The keyword arguments of one attempt.

        Raises:
            UnsupportedRequestError: A model is forced that this router does not serve.
        """
        target, rules = attempt.target, get_provider(attempt.target.provider)
        if self.group is not None and self.group.mixed:  # its deployments do not all understand the same marks
            attempt = attempt._replace(cache_plan=None)
        sent = rules.write_request(self.arguments, attempt, self.endpoint)
        if self.endpoint in rules.endpoints:  # LiteLLM translates other shapes, and their cache fields with them
            sent = strip_foreign_cache_fields(sent, target.provider)
        sent["model"] = self._group_of(target)
        if not self.own_timeout and attempt.timeout_s is not None:
            sent["timeout"] = attempt.timeout_s
        # LiteLLM keeps its own notes in it; only the chat API's is not also the provider's
        bucket = "metadata" if self.endpoint == "chat.completions" else "litellm_metadata"
        sent[bucket] = {**(sent.get(bucket) or {}), GOVERNED: attempt.call_id}
        return {**sent, **self.switches}

    def read(self, attempt: Attempt, answer: Any) -> UsageReport:
        """What an answer says of its bill."""
        return self.priced(read_answer(answer, attempt.target.provider, self.endpoint))

    def read_chunks(self, attempt: Attempt, stream: Any, chunks: Sequence[Any] | None) -> UsageReport:
        """What a chat stream has said so far, by these chunks or by its own."""
        if is_cached(stream):
            return FREE
        return self.priced(read_chunks(stream.chunks if chunks is None else chunks, attempt.target.provider))

    def priced(self, reading: UsageReport) -> UsageReport:
        """A reading that is priced as the group is: by the group's own price where it has one."""
        if self.group is None or not self.group.alias:
            return reading
        return reading._replace(model=None, items=tuple(item._replace(model=None) for item in reading.items))

    def _group_of(self, target: ModelRef) -> str:
        if self.group is not None and self.group.target == target:
            return str(self.arguments["model"])
        if target in self.serving:
            return self.serving[target]
        raise UnsupportedRequestError(str(target), "this router has no deployment of it: add one to its model_list")


def read_call(
    endpoint: Endpoint,
    arguments: Mapping[str, Any],
    *,
    group: Group | None,
    groups: Groups,
    defaults: Mapping[str, Any],
    own_timeout: bool,
    switches: Mapping[str, Any],
) -> RouterCall:
    """Keyword arguments of a router's method as a call.

    Args:
        endpoint: Which API's shape they have.
        arguments: As the caller gave them, ``model`` and messages included; never changed.
        group: The group that is called by name; ``None``: the call is routed.
        groups: All that the router has.
        defaults: What LiteLLM will add to arguments that are absent.
        own_timeout: The router or its deployments have timeouts of their own.
        switches: What turns LiteLLM's own retries off on this endpoint.

    Raises:
        ConfigurationError: What the call says under ``llm_cost`` cannot be used.
    """
    said: Any = None
    sent = {}
    for name, value in arguments.items():
        if name in RESENDING:
            continue
        if name in _METADATA and isinstance(value, Mapping):
            said = value.get(METADATA_KEY, said)
            value = {key: item for key, item in value.items() if key != METADATA_KEY}  # noqa: PLW2901 - a copy
        elif name in ("messages", "input", "tools", "system"):
            value = plain(value)  # noqa: PLW2901 - message objects of LiteLLM to mappings
        sent[name] = value
    body = {**defaults, **{name: value for name, value in sent.items() if value is not None}}
    request = _reader_of(endpoint).read_request(body, endpoint)
    target = group.target if group is not None else None
    request = request._replace(
        provider=target.provider if target is not None else request.provider,
        model=target.model if target is not None else request.model,
        stream=bool(arguments.get("stream")),
        context=read_context(said),
        model_pinned=target is not None,
    )
    timed = own_timeout or any(arguments.get(name) is not None for name in _TIMEOUTS)
    reach = groups.reach if target is None else frozenset((target.provider,))
    return RouterCall(endpoint, sent, request, group, groups.serving, reach, timed, switches)


def _reader_of(endpoint: Endpoint) -> Provider:
    """The provider in whose shape the arguments of an endpoint are."""
    return next(rules for rules in map(get_provider, NAMES) if endpoint in rules.endpoints)
