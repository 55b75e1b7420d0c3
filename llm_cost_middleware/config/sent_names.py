"""The names of models that a client sends: a provider's own, or a platform's, as a configuration reads them."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.gateways import platform_at
from llm_cost_middleware.config.platforms import PlatformConfig
from llm_cost_middleware.errors import LLMCostError, UnsupportedRequestError
from llm_cost_middleware.platform import find_platform
from llm_cost_middleware.request import CallRequest, ModelRef

_KEPT = 64


class ClientNames:
    """What the names that one client sends stand for, as the configuration says at the time of a call.

    Args:
        provider: The provider, or the platform.
        client: The client.
        maker: The provider, where the client's address decides who answers; else empty.
    """

    __slots__ = ("_address", "_client", "_known", "_maker", "_platform", "_provider")

    def __init__(self, provider: str, client: Any, maker: str = "") -> None:
        self._provider, self._client, self._platform = provider, client, find_platform(provider)
        self._maker = maker
        self._address = client.base_url if maker else None
        self._known: tuple[CostConfig | None, str, dict[str, SentNames]] = None, "", {}

    def at(self, config: CostConfig, endpoint: str) -> SentNames:
        """What they stand for at an endpoint; worked out once for each configuration and place of the client.

        Raises:
            UnsupportedRequestError: The client was set to an address where somebody else answers.
        """
        if self._maker and self._client.base_url is not self._address:
            self._look_at(self._client.base_url)
        place = self._platform.place_of(self._client) if self._platform is not None else ""
        of, there, known = self._known
        if of is not config or there != place:  # the first call; or it was reloaded, or the client's region was set
            self._known = _, _, known = config, place, {}
        found = known.get(endpoint)
        if found is None:
            if len(known) >= _KEPT:  # callers choose paths
                known.clear()
            found = known[endpoint] = SentNames(config, self._provider, self._client, endpoint)
        return found

    def _look_at(self, address: Any) -> None:
        there = platform_at(self._maker, address) or self._maker
        if there != self._provider:
            raise UnsupportedRequestError(
                there, f"the client was wrapped for {self._provider} and set to another address since: wrap it anew"
            )
        self._address = address


class SentNames:
    """What the names that are sent to a provider or a platform stand for.

    Args:
        config: Says which model stands behind a deployment or an ARN.
        provider: The provider, or the platform.
        client: The client: it may be bound to a place.
        endpoint: What is called.
    """

    __slots__ = ("_fixed", "_place", "_provider", "_section", "bare_streams", "reach")

    def __init__(self, config: CostConfig, provider: str, client: Any, endpoint: str) -> None:
        self._provider, self._section = provider, config.platforms.get(provider)
        platform = find_platform(provider)
        self._place = place = platform.place_of(client) if platform is not None else ""
        self._fixed = platform.deployment_of(client, endpoint) if platform is not None else ""
        self.bare_streams = platform is not None and platform.knows_no_stream_usage(client)
        """Nothing is added to a stream: the API refuses what asks for its usage."""
        reach: tuple[str, ...] = (provider,)
        if platform is not None and place:
            reach = tuple(f"{provider}/{there}" for there in platform.reached_from(place))
        if self._fixed and self._section is not None:
            reach = (str(self._target(self._section, self._fixed)),)
        self.reach = frozenset(reach)
        """What the client can call, as ``HostCall.providers``: of a platform at one place, what is served there."""

    def read(self, request: CallRequest, routed: str) -> CallRequest:
        """A request in its provider's form, at the platform, under what its name stands for; ``routed`` stands."""
        if self._section is None:
            return request
        platform = find_platform(self._provider)
        is_word = platform is None or platform.parse(routed) is None
        if request.model == routed and is_word and not self._fixed:
            return request._replace(provider=self._provider)
        target = self._target(self._section, request.model)
        return request._replace(provider=target.provider, model=target.model)

    def target(self, name: str, path: str = "") -> ModelRef:
        """What a name stands for, of a call that is not governed; the name itself, where nothing is known of it.

        Args:
            name: The model of the request.
            path: Where it is sent, which may name a deployment.
        """
        platform = find_platform(self._provider)
        name = (platform.deployment_in(path) if platform is not None else "") or name
        if self._section is None:
            return ModelRef(self._provider, name)
        try:
            return self._target(self._section, name)
        except LLMCostError:
            return ModelRef(self._provider, name)

    def written(self, target: ModelRef, called: str) -> str:
        """The name to send for a target.

        Args:
            target: Whom an attempt is for.
            called: The name that the caller wrote: it stays, where it stands for the target.
        """
        if self._section is None:
            return target.model
        if self._target(self._section, called) == target.plain:
            return called
        return self._section.wire(target.plain) or target.model

    def why_no_batch(self, name: str) -> str:
        """Why what a name stands for does not answer batches; empty: it does, as far as it is known."""
        if self._section is None or self._section.makes_batches(self._fixed or name):
            return ""
        return f"{name} is no deployment that is said to answer batches of {self._provider}"

    def _target(self, section: PlatformConfig, name: str) -> ModelRef:
        return section.sent_from(self._place, self._fixed or name)  # a fixed one is called whatever a call says
