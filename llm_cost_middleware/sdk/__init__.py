"""Governing a client of the ``anthropic`` or the ``openai`` SDK. Both are made by one generator, and share this room.

Every method of such a client that spends ends in the client's own ``post``. That is where a call is governed, so the
resources, helpers and types of the SDK stay exactly what they are. No SDK is imported here.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import Attempt, CallResult
from llm_cost_middleware.sdk.api import Api
from llm_cost_middleware.sdk.call import RAW_RESPONSE, SdkCall
from llm_cost_middleware.sdk.streams import SdkStream

C = TypeVar("C")

__all__ = ["Api", "govern"]


def govern(client: C, pipeline: CostPipeline, api: Api, *, routed: str) -> C:
    """A copy of ``client``, of the same class, over the same connections, whose spending methods are governed.

    Args:
        client: A client of the SDK, synchronous or asynchronous. It is not changed.
        pipeline: Governs the calls.
        api: The SDK.
        routed: The model name that is routed among the provider's models in the configured tiers.

    Raises:
        ConfigurationError: It is no client of this SDK.
        UnsupportedRequestError: It talks to another platform, and ``on_ungoverned`` is ``deny``.
    """
    home = next((kind for kind in type(client).__mro__ if kind.__module__.partition(".")[0] == api.provider), None)
    if home is None or not hasattr(client, "post"):
        raise ConfigurationError(
            f"expected a client of the {api.provider} SDK, not {type(client).__qualname__}", key="client"
        )
    if home.__name__ not in api.clients:
        pipeline.ungoverned(
            home.__name__, f"its platform has prices of its own; wrap a plain {' or '.join(sorted(api.clients))}"
        )
        return client
    return _Door(pipeline, api, routed).open(client)


class _Door(NamedTuple):
    """What a governed client needs to know."""

    pipeline: CostPipeline
    api: Api
    routed: str

    def open(self, client: C) -> C:
        """The copy. What it shadows are public methods; resources bind them when they are first used."""
        twin: Any = copy.copy(client)
        for name in [name for name in vars(twin) if _is_cached(type(twin), name)]:
            del vars(twin)[name]  # a resource of the original, bound to its ungoverned methods
        post = self._apost if inspect.iscoroutinefunction(twin.post) else self._post
        twin.post = functools.partial(post, twin.post, twin.timeout)
        for name in ("copy", "with_options"):
            setattr(twin, name, functools.partial(self._copied, getattr(twin, name)))
        governed: C = twin
        return governed

    def _copied(self, make: Any, **options: Any) -> Any:
        return self.open(make(**options))

    def _call(self, path: str, arguments: Mapping[str, Any], timeout: Any) -> SdkCall | None:
        """The call that a ``post`` is; ``None`` where it is not one of those that are governed."""
        bare = path.partition("?")[0]
        options = arguments.get("options") or {}
        endpoint = self.api.endpoints.get(bare)
        if endpoint is None:
            for beginning, advice in self.api.ungoverned.items():
                if bare.startswith(beginning):
                    self.pipeline.ungoverned(f"POST {bare}", advice)
            return None
        if (options.get("headers") or {}).get(RAW_RESPONSE) == "stream":
            self.pipeline.ungoverned(
                f"POST {bare} by with_streaming_response", "use stream=True or with_raw_response, which are governed"
            )
            return None
        stream = bool(arguments.get("stream"))
        return SdkCall(
            self.api, endpoint, arguments["body"], options, stream=stream, routed=self.routed, timeout=timeout
        )

    def _post(self, send_on: Any, client_timeout: Any, path: str, **arguments: Any) -> Any:
        call = self._call(path, arguments, client_timeout)
        if call is None:
            return send_on(path, **arguments)

        def send(attempt: Attempt) -> CallResult | SdkStream:
            return call.read(send_on(path, **arguments | call.rendered(attempt)))

        return call.deliver(self.pipeline.run(call.request, send, providers=frozenset((self.api.provider,))))

    async def _apost(self, send_on: Any, client_timeout: Any, path: str, **arguments: Any) -> Any:
        call = self._call(path, arguments, client_timeout)
        if call is None:
            return await send_on(path, **arguments)

        async def send(attempt: Attempt) -> CallResult | SdkStream:
            return await call.aread(await send_on(path, **arguments | call.rendered(attempt)))

        return call.deliver(await self.pipeline.arun(call.request, send, providers=frozenset((self.api.provider,))))


def _is_cached(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)
