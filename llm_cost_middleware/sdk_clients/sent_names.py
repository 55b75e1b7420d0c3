"""The names of models that a client sends: a provider's own, or a platform's, as a configuration reads them."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.platforms import PlatformConfig
from llm_cost_middleware.platform import REGIONAL, at_place, find_platform, served_model
from llm_cost_middleware.request import CallRequest, ModelRef


class ClientNames:
    """What the names that one client sends stand for, as the configuration says at the time of a call.

    Args:
        provider: The provider, or the platform.
        client: The client.
    """

    __slots__ = ("_client", "_known", "_provider")

    def __init__(self, provider: str, client: Any) -> None:
        self._provider, self._client = provider, client
        self._known: tuple[CostConfig | None, dict[str, SentNames]] = None, {}

    def at(self, config: CostConfig, endpoint: str) -> SentNames:
        """What they stand for at an endpoint; worked out once for each configuration."""
        of, known = self._known
        if of is not config:  # the first call, or it was reloaded
            self._known = _, known = config, {}
        found = known.get(endpoint)
        if found is None:
            found = known[endpoint] = SentNames(config, self._provider, self._client, endpoint)
        return found


class SentNames:
    """What the names that are sent to a provider or a platform stand for.

    Args:
        config: Says which model stands behind a deployment or an ARN.
        provider: The provider, or the platform.
        client: The client: it may be bound to a place.
        endpoint: What is called.
    """

    __slots__ = ("_fixed", "_place", "_priced", "_provider", "_section", "bare_streams", "reach")

    def __init__(self, config: CostConfig, provider: str, client: Any, endpoint: str) -> None:
        self._provider, self._section = provider, config.platforms.get(provider)
        platform = find_platform(provider)
        self._place = place = platform.place_of(client) if platform is not None else ""
        self._fixed = platform.deployment_of(client, endpoint) if platform is not None else ""
        self._priced = config.prices  # what is stated for a name holds wherever its client sends it
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

    def _target(self, section: PlatformConfig, name: str) -> ModelRef:
        """What a name stands for: where its client is bound to a place, it is served there."""
        name = self._fixed or name  # whatever a call says
        target = section.target(name)
        if self._place and served_model(*target.plain).place == REGIONAL and str(target) not in self._priced:
            return ModelRef(self._provider, at_place(target.model, self._place))
        placed = name.startswith("arn:") or served_model(self._provider, name).place
        if not self._place or name in section.deployments or placed:
            return target
        return ModelRef(self._provider, at_place(name, self._place))
