"""Governing a client of the ``anthropic`` or the ``openai`` SDK. Both are made by one generator, and share this room.

Every method of such a client that spends ends in the client's own ``post``. That is where a call is governed, so the
resources, helpers and types of the SDK stay exactly what they are. No SDK is imported here.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.context import METADATA_KEY
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import Attempt, CallResult
from llm_cost_middleware.sdk.api import Api
from llm_cost_middleware.sdk.batches import (
    CLAUDE_RESULTS,
    GPT_BATCH,
    GPT_FILE,
    Batches,
    Results,
    claude_bodies,
    gpt_bodies,
)
from llm_cost_middleware.sdk.bodies import has_strange_cap
from llm_cost_middleware.sdk.call import RAW_RESPONSE, SdkCall
from llm_cost_middleware.sdk.extra import hear_extra, without_said
from llm_cost_middleware.sdk.streams import SdkStream

C = TypeVar("C")
_BATCHES = frozenset({"/v1/messages/batches", "/v1/messages/batches?beta=true", "/batches"})

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
    batches = Batches(pipeline, api.provider)
    return _Door(pipeline, api, routed, batches, frozenset((api.provider,))).open(client)


class _Ways(NamedTuple):
    """A governed client, and its ungoverned ways out."""

    client: Any
    post: Any
    get: Any
    timeout: Any
    """The client's own timeout."""


class _Door(NamedTuple):
    """What a governed client needs to know."""

    pipeline: CostPipeline
    api: Api
    routed: str
    batches: Batches
    providers: frozenset[str]
    """The one it can reach."""

    def open(self, client: C) -> C:
        """The copy. What it shadows are public methods; resources bind them when they are first used."""
        twin: Any = copy.copy(client)
        for name in [name for name in vars(twin) if _is_cached(type(twin), name)]:
            del vars(twin)[name]  # a resource of the original, bound to its ungoverned methods
        post = self._apost if inspect.iscoroutinefunction(twin.post) else self._post
        get = self._aget if post == self._apost else self._get
        ways = _Ways(twin, twin.post, twin.get, twin.timeout)
        twin.post, twin.get = functools.partial(post, ways), functools.partial(get, ways)
        for name in ("copy", "with_options"):
            setattr(twin, name, functools.partial(self._copied, getattr(twin, name)))
        hear_extra(twin, self.api.methods)
        governed: C = twin
        return governed

    def _copied(self, make: Any, **options: Any) -> Any:
        return self.open(make(**options))

    def _bare(self, path: str) -> str:
        """A path as the resources write it, from any spelling: absolute, or without its first slash."""
        bare = path.partition("?")[0]
        if "://" in bare:
            bare = "/" + bare.partition("://")[2].partition("/")[2]
        bare = bare if bare.startswith("/") else f"/{bare}"
        known = (*self.api.endpoints, *self.api.ungoverned)
        return next((bare[bare.index(end) :] for end in known if "/v1" + end in bare), bare)

    def _call(self, path: str, arguments: Mapping[str, Any], timeout: Any) -> SdkCall | None:
        """The call that a ``post`` is; ``None`` where it is not one of those that are governed."""
        options = arguments.get("options") or {}
        endpoint = self.api.endpoints.get(path) or self.api.endpoints.get(bare := self._bare(path))
        if endpoint is None:
            for beginning, advice in self.api.ungoverned.items():
                if bare.startswith(beginning):
                    self.pipeline.ungoverned(f"POST {bare}", advice)
            return None
        if (options.get("headers") or {}).get(RAW_RESPONSE) == "stream":
            self.pipeline.ungoverned(
                f"POST {path} by with_streaming_response", "use stream=True or with_raw_response, which are governed"
            )
            return None
        body = arguments.get("body")
        if not isinstance(body, Mapping) or has_strange_cap(body):
            return None  # the provider refuses it, for nothing
        stream = bool(arguments.get("stream"))
        return SdkCall(self.api, endpoint, body, options, stream=stream, routed=self.routed, timeout=timeout)

    def _makes_batch(self, path: str) -> bool:
        return path not in self.api.endpoints and self._bare(path) in _BATCHES

    def _post(self, ways: _Ways, path: str, **arguments: Any) -> Any:
        if self._makes_batch(path):
            return self._create_batch(ways, path, arguments)
        call = self._call(path, arguments, ways.timeout)
        if call is None:
            return ways.post(path, **without_said(arguments))

        def send(attempt: Attempt) -> CallResult | SdkStream:
            return call.read(ways.post(path, **arguments | call.rendered(attempt)))

        return call.deliver(self.pipeline.run(call.request, send, providers=self.providers))

    async def _apost(self, ways: _Ways, path: str, **arguments: Any) -> Any:
        if self._makes_batch(path):
            return await self._acreate_batch(ways, path, arguments)
        call = self._call(path, arguments, ways.timeout)
        if call is None:
            return await ways.post(path, **without_said(arguments))

        async def send(attempt: Attempt) -> CallResult | SdkStream:
            return await call.aread(await ways.post(path, **arguments | call.rendered(attempt)))

        return call.deliver(await self.pipeline.arun(call.request, send, providers=self.providers))

    # --- batches ---------------------------------------------------------------------------------------------------

    def _create_batch(self, ways: _Ways, path: str, arguments: dict[str, Any]) -> Any:
        content = b""
        if self.api.provider == "openai":  # the requests lie in a file: reading it costs nothing
            content = ways.client.files.content(arguments["body"]["input_file_id"]).content
        bodies, arguments = self._batch_of(arguments, content)
        reservation_id = self.batches.reserve(*bodies)
        try:
            batch = ways.post(path, **arguments)
        except BaseException as error:
            self.batches.failed(reservation_id, error)
            raise
        self.batches.created(reservation_id, batch.id)
        return batch

    async def _acreate_batch(self, ways: _Ways, path: str, arguments: dict[str, Any]) -> Any:
        content = b""
        if self.api.provider == "openai":
            content = (await ways.client.files.content(arguments["body"]["input_file_id"])).content
        bodies, arguments = self._batch_of(arguments, content)
        reservation_id = await asyncio.to_thread(self.batches.reserve, *bodies)
        try:
            batch = await ways.post(path, **arguments)
        except BaseException as error:
            self.batches.failed(reservation_id, error)
            raise
        await asyncio.to_thread(self.batches.created, reservation_id, batch.id)
        return batch

    def _batch_of(self, arguments: dict[str, Any], content: bytes) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """The requests of a batch with what was said of it, and the arguments with that taken out."""
        options = dict(arguments.get("options") or {})
        extra = dict(options.pop("extra_json", None) or {})
        said = extra.pop(METADATA_KEY, None)
        if extra:
            options["extra_json"] = extra
        if self.api.provider == "openai":
            return (gpt_bodies(content), said), {**arguments, "options": options}
        bodies, sent, inner = claude_bodies(arguments["body"])
        return (bodies, said or inner), {**arguments, "body": sent, "options": options}

    def _get(self, ways: _Ways, path: str, **arguments: Any) -> Any:
        answer = ways.get(path, **arguments)
        if (found := CLAUDE_RESULTS.search(path)) is not None:
            return Results(self.batches, found[1], answer).put_back(asynchronous=False)
        self._noted(path, answer)
        return answer

    async def _aget(self, ways: _Ways, path: str, **arguments: Any) -> Any:
        answer = await ways.get(path, **arguments)
        if (found := CLAUDE_RESULTS.search(path)) is not None:
            return Results(self.batches, found[1], answer).put_back(asynchronous=True)
        if GPT_BATCH.match(path) or GPT_FILE.match(path):
            await asyncio.to_thread(self._noted, path, answer)
        return answer

    def _noted(self, path: str, answer: Any) -> None:
        """Learn from what passes: a batch of OpenAI's that ended, and the file of its results."""
        if self.api.provider != "openai":
            return
        if GPT_BATCH.match(path) and hasattr(answer, "output_file_id"):
            self.batches.told(answer)
        elif (found := GPT_FILE.match(path)) is not None and hasattr(answer, "content"):
            self.batches.fetched(found[1], self.batches.read(answer.content))


def _is_cached(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)
