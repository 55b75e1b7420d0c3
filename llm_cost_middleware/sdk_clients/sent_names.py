"""The names of models that a client sends: a provider's own, or a platform's, as a configuration reads them."""

from __future__ import annotations

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.request import CallRequest, ModelRef


class SentNames:
    """What the names that are sent to a provider or a platform stand for.

    Args:
        config: Says which model stands behind a deployment or an ARN.
        provider: The provider, or the platform.
    """

    __slots__ = ("_provider", "_section")

    def __init__(self, config: CostConfig, provider: str) -> None:
        self._provider, self._section = provider, config.platforms.get(provider)

    def read(self, request: CallRequest, routed: str) -> CallRequest:
        """A request in its provider's form, at the platform, under what its name stands for; ``routed`` stands."""
        if self._section is None:
            return request
        if request.model == routed:
            return request._replace(provider=self._provider)
        target = self._section.target(request.model)
        return request._replace(provider=target.provider, model=target.model)

    def written(self, target: ModelRef, called: str) -> str:
        """The name to send for a target.

        Args:
            target: Whom an attempt is for.
            called: The name that the caller wrote: it stays, where it stands for the target.
        """
        if self._section is None:
            return target.model
        if self._section.target(called) == target.plain:
            return called
        return self._section.wire(target.plain) or target.model
