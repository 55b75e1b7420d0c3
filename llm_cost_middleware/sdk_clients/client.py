"""A governed copy of an SDK's client: its ``post`` and ``get`` are shadowed, everything else is the SDK's."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.config.gateways import is_gateway, platform_at
from llm_cost_middleware.config.sent_names import ClientNames
from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import ConfigurationError, LLMCostError
from llm_cost_middleware.event_loops import in_thread
from llm_cost_middleware.extras import require
from llm_cost_middleware.host import ainvoke, invoke
from llm_cost_middleware.nesting import WrappedClient, join_leaving, mark_wrapped, wrapped_client
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import find_platform
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.sdk_clients.api import FREE_VERBS, Api, BatchRequests
from llm_cost_middleware.sdk_clients.attributes import accept_extra_argument, attributes_of, strip_attributes
from llm_cost_middleware.sdk_clients.background import BackgroundAnswers
from llm_cost_middleware.sdk_clients.batches import Batches
from llm_cost_middleware.sdk_clients.call import Reply, SdkCall
from llm_cost_middleware.sdk_clients.copies import bind_resources, is_cached, is_elsewhere
from llm_cost_middleware.sdk_clients.middleware import sending_once
from llm_cost_middleware.sdk_clients.requests_by_hand import (
    as_post,
    passing,
    was_looked_at,
    with_readable_body,
)
from llm_cost_middleware.sdk_clients.signatures import like
from llm_cost_middleware.sdk_clients.sockets import watch_sockets
from llm_cost_middleware.timeouts import checked_timeout
from llm_cost_middleware.unread_counts import BUILDS_OBJECTS, note_odd_counts

C = TypeVar("C")


def govern(client: C, pipeline: CostPipeline, api: Api, *, routed: str) -> C:
    """A copy of ``client``, of the same class, over the same connections, whose spending methods are governed.

    Args:
        client: A client of the SDK, synchronous or asynchronous. It is not changed.
        pipeline: Governs the calls.
        api: The SDK.
        routed: The model name that is routed among the provider's models in the configured tiers.

    Raises:
        ConfigurationError: It is no client of this SDK.
        MissingExtraError: It cannot send, as what its platform needs is not installed.
        UnsupportedRequestError: It talks to another platform, and ``on_ungoverned`` is ``deny``.
    """
    sdk_class = next((kind for kind in type(client).__mro__ if kind.__module__.partition(".")[0] == api.provider), None)
    if sdk_class is None or not hasattr(client, "post"):
        raise ConfigurationError(
            f"expected a client of the {api.provider} SDK, not {type(client).__qualname__}", key="client"
        )
    if sdk_class.__name__ not in api.clients and sdk_class.__name__ not in api.platforms:
        pipeline.ungoverned(
            sdk_class.__name__, f"its platform has prices of its own; wrap {_choice(api)}",
            leaves=False,
        )  # fmt: skip
        pipeline.keep_inside(sdk_class.__name__, None)
        return client
    # wrapped twice, a call would be booked twice
    inner = wrapped_client(client, pipeline)
    if inner is None:
        return _wrapped(client, pipeline, api, routed, sdk_class.__name__)
    again: C = _wrapped(inner.client, pipeline, api, routed, sdk_class.__name__, retries_chosen=inner.retries_chosen)
    return again


def _wrapped(
    client: C, pipeline: CostPipeline, sdk: Api, routed: str, kind: str, *,
    retries_chosen: bool = False, made: dict[str, Batches] | None = None,
) -> C:  # fmt: skip
    """A governed copy of a client of the class ``kind``, for whoever answers where it is set to.

    ``made``: the batches of those that it is a copy of, by provider.
    """
    platform = sdk.platforms.get(kind)
    moves = platform is None  # the provider's own client may be set to a platform's address
    if moves:
        platform = platform_at(sdk.provider, getattr(client, "base_url", ""))
    if platform is None:
        api = sdk
    else:  # from here on the platform is who answers
        api = replace(sdk, provider=platform)
        known = find_platform(platform)
        require(kind, known.needs if known is not None else ())
    made = {} if made is None else made
    if (batches := made.get(api.provider)) is None:
        batches = made.setdefault(api.provider, Batches(pipeline, api.provider))
    anew = functools.partial(_wrapped, pipeline=pipeline, sdk=sdk, routed=routed, kind=kind, made=made)
    wrapper = ClientWrapper(
        pipeline, api, routed, batches, BackgroundAnswers(pipeline, api.provider), anew,
        sdk.provider if moves else "",
    )  # fmt: skip
    governed: C = wrapper.wrap(client, retries_chosen=retries_chosen)
    return governed


def _choice(api: Api) -> str:
    return " or ".join(sorted(api.clients | api.platforms.keys()))


def is_governed(client: Any) -> bool:
    """Whether a client of an SDK came out of ``govern``."""
    return hasattr(getattr(client, "__dict__", {}).get("post"), _MARK)


def ungoverned(client: C) -> C:
    """A client that sends without us: the very client, or a copy of one that is governed."""
    if not is_governed(client):
        return client
    twin: Any = copy.copy(client)
    for name in (*_SHADOWED, *(name for name in vars(twin) if is_cached(twin, name))):
        vars(twin).pop(name, None)
    bind_resources(twin, client)
    plain: C = twin
    return plain


_MARK = "_llm_cost_governed"
_SHADOWED = ("post", "get", "request", "copy", "with_options", BUILDS_OBJECTS)


class OriginalMethods(NamedTuple):
    """A governed client, and the ungoverned methods that it shadows."""

    client: Any
    post: Any
    get: Any
    request: Any
    retries_chosen: bool
    """Its number of retries was given to ``with_options``."""
    names: ClientNames
    """What the names that it sends stand for."""


class ClientWrapper(NamedTuple):
    """Makes governed copies of a client, and governs what they post."""

    pipeline: CostPipeline
    api: Api
    routed: str
    batches: Batches
    background: BackgroundAnswers
    anew: Any
    """Wraps a copy of the client, which may be set to another address."""
    maker: str
    """The provider, where its client decides by an address who answers; empty where its class says it."""

    def wrap(self, client: C, *, retries_chosen: bool = False) -> C:
        """The copy. What it shadows are public methods; resources bind them when they are first used."""
        plain, client = client, sending_once(client, self.api, self.pipeline)
        twin: Any = copy.copy(client)
        for name in [name for name in vars(twin) if is_cached(twin, name)]:
            del vars(twin)[name]  # a resource of the original, bound to its ungoverned methods
        post = self._apost if inspect.iscoroutinefunction(twin.post) else self._post
        get = self._aget if post == self._apost else self._get
        request = self._arequest if post == self._apost else self._request
        names = ClientNames(self.api.provider, twin, self.maker)
        original = OriginalMethods(
            twin, passing(twin.post, twin), passing(twin.get, twin), twin.request, retries_chosen, names
        )
        copied = functools.partial(self._copied, retries_chosen)
        for name, governed_method in (("post", post), ("get", get), ("request", request)):
            governed = self._at_door(functools.partial(governed_method, original))
            setattr(twin, name, like(getattr(twin, name), governed))
        for name in ("copy", "with_options"):
            make = getattr(twin, name)
            setattr(twin, name, like(make, functools.partial(copied, make)))
        bind_resources(twin, client)
        setattr(twin.post, _MARK, True)
        note_odd_counts(twin)
        # makes the resources of the copy, so it comes after ``post`` was shadowed
        accept_extra_argument(twin, self.api.methods)
        watch_sockets(twin, self.api.sockets, self.pipeline, self.api.provider, self._at_door)
        mark_wrapped(twin, WrappedClient(self.pipeline, plain, retries_chosen))
        made: C = twin
        return made

    def _at_door(self, method: Any) -> Any:
        """``method``, which raises the errors of this package as the SDK's own."""
        errors = self.api.errors
        if inspect.iscoroutinefunction(method):

            async def acall(*args: Any, **kwargs: Any) -> Any:
                try:
                    return await method(*args, **kwargs)
                except LLMCostError as error:
                    errors.raised(error)

            return acall

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except LLMCostError as error:
                errors.raised(error)

        return call

    def _copied(self, retries_chosen: bool, make: Any, *args: Any, **options: Any) -> Any:
        chosen = isinstance(options.get("max_retries"), int | float)  # neither absent nor NOT_GIVEN
        return self.anew(make(*args, **options), retries_chosen=chosen or retries_chosen)

    def _call(self, original: OriginalMethods, path: str, arguments: Mapping[str, Any]) -> SdkCall | None:
        """The call that a ``post`` is; ``None`` where it is not one of those that are governed."""
        options = arguments.get("options") or {}
        endpoint = self.api.endpoints.get(path) or self.api.endpoints.get(self.api.canonical(path))
        if endpoint is None or is_elsewhere(original.client, path):
            return None
        body = arguments.get("body")
        if not isinstance(body, Mapping):
            return None
        names = original.names.at(self.pipeline.config, endpoint)
        return SdkCall(
            self.api, endpoint, body, options, names=names, stream=bool(arguments.get("stream")),
            routed=self.routed, providers=names.reach, client=original.client,
            retries_chosen=original.retries_chosen,
            bare=(arguments.get("stream") and names.bare_streams)
            or is_gateway(self.pipeline.config, self.api.provider, original.client.base_url),
        )  # fmt: skip

    def _readable(self, path: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments with the body as a mapping, where what is posted is governed and can be read."""
        if isinstance(arguments.get("body"), Mapping):
            return arguments
        governed = self.api.canonical(path) in (*self.api.endpoints, self.api.batches.path)
        return with_readable_body(arguments) if governed else arguments

    def _pass(self, original: OriginalMethods, path: str, arguments: Mapping[str, Any], verb: str = "post") -> None:
        """Report or refuse what is sent past the middleware; the rest costs nothing."""
        treatment = self.api.treatment(verb, path)
        if verb in FREE_VERBS:
            return
        bare, body, advice = self.api.canonical(path), arguments.get("body"), treatment.why
        model = body.get("model") if isinstance(body, Mapping) else None
        names = original.names.at(self.pipeline.config, bare.strip("/").replace("/", "."))
        target: ModelRef | None
        target, what = names.target(model if isinstance(model, str) else "", path), f"{verb.upper()} {bare}"
        if is_elsewhere(original.client, path):
            target, advice = None, "it is sent to another host than the client's: set a client to it, and wrap that"
        if treatment.kind == "free":
            if not self.api.ends(bare):
                self.pipeline.keep_inside(what, target)
            return
        if treatment.kind == "governed" and target is not None:
            advice = "its body cannot be read: give it as a mapping"
        self.pipeline.ungoverned(what, advice, context=read_context(attributes_of(arguments)), target=target)

    def _makes_batch(self, original: OriginalMethods, path: str) -> bool:
        if path in self.api.endpoints or self.api.canonical(path) != self.api.batches.path:
            return False
        if is_elsewhere(original.client, path):
            return False
        platform = find_platform(self.api.provider)
        return platform is None or platform.batches  # the SDK itself refuses where there are none

    def _request(self, original: OriginalMethods, cast_to: Any, options: Any, **more: Any) -> Any:
        """A ``request`` with its options: one of our own, or by hand."""
        if was_looked_at(original.client):
            return original.request(cast_to, options, **more)
        verb, path = str(options.method).strip().lower(), str(options.url)
        arguments = as_post(cast_to, options, more)
        if verb == "post":
            return self._post(original, path, **arguments)
        self._pass(original, path, arguments, verb)
        return self._noted(verb, path, original.request(cast_to, options, **more), arguments)

    async def _arequest(self, original: OriginalMethods, cast_to: Any, options: Any, **more: Any) -> Any:
        if was_looked_at(original.client):
            return await original.request(cast_to, options, **more)
        verb, path = str(options.method).strip().lower(), str(options.url)
        arguments = as_post(cast_to, options, more)
        if verb == "post":
            return await self._apost(original, path, **arguments)
        await in_thread(self._pass, original, path, arguments, verb)
        return await self._anoted(verb, path, await original.request(cast_to, options, **more), arguments)

    def _post(self, original: OriginalMethods, path: str, **arguments: Any) -> Any:
        arguments = self._readable(path, arguments)
        if self._makes_batch(original, path):
            return self._create_batch(original, path, arguments)
        call = self._call(original, path, arguments)
        if call is None:
            self._pass(original, path, arguments)
            return self._noted("post", path, original.post(path, **strip_attributes(arguments)), arguments)
        if join_leaving(self.pipeline):
            return original.post(path, **_once(strip_attributes(arguments)))

        def send(rendered: dict[str, Any]) -> Reply:
            response = original.post(path, **arguments | rendered)
            return Reply(response, call.open(response))

        return invoke(self.pipeline, call, send)

    async def _apost(self, original: OriginalMethods, path: str, **arguments: Any) -> Any:
        arguments = self._readable(path, arguments)
        if self._makes_batch(original, path):
            return await self._acreate_batch(original, path, arguments)
        call = self._call(original, path, arguments)
        if call is None:
            await in_thread(self._pass, original, path, arguments)
            answer = await original.post(path, **strip_attributes(arguments))
            return await self._anoted("post", path, answer, arguments)
        if join_leaving(self.pipeline):
            return await original.post(path, **_once(strip_attributes(arguments)))

        async def send(rendered: dict[str, Any]) -> Reply:
            response = await original.post(path, **arguments | rendered)
            stream = call.open(response)
            return Reply(response, await stream if inspect.isawaitable(stream) else stream)

        return await ainvoke(self.pipeline, call, send)

    # --- batches ---------------------------------------------------------------------------------------------------

    def _create_batch(self, original: OriginalMethods, path: str, arguments: dict[str, Any]) -> Any:
        content, body = b"", arguments["body"]
        if (file_id := self.api.batches.input_file(body)) is not None:  # reading it costs nothing
            content = original.client.files.content(file_id).content
        batch, arguments = self._batch_of(original, arguments, content)
        reservation_id = self.batches.reserve(batch.requests, batch.attributes, original.names)
        try:
            created = original.post(path, **arguments)
        except BaseException as error:  # a cancelled post may have created it as well: the failure decides
            self.batches.failed(reservation_id, error)
            raise
        self.batches.created(reservation_id, created)
        return created

    async def _acreate_batch(self, original: OriginalMethods, path: str, arguments: dict[str, Any]) -> Any:
        content, body = b"", arguments["body"]
        if (file_id := self.api.batches.input_file(body)) is not None:
            content = (await original.client.files.content(file_id)).content
        batch, arguments = self._batch_of(original, arguments, content)
        # the ledger's file or socket would hold up the event loop
        reservation_id = await self.batches.areserve(batch.requests, batch.attributes, original.names)
        try:
            created = await original.post(path, **arguments)
        except BaseException as error:
            self.batches.failed(reservation_id, error)
            raise
        await in_thread(self.batches.created, reservation_id, created)
        return created

    def _batch_of(
        self, original: OriginalMethods, arguments: dict[str, Any], content: bytes
    ) -> tuple[BatchRequests, dict[str, Any]]:
        """The requests of a batch with its attributes, and the arguments without them."""
        original.names.at(self.pipeline.config, "batches")  # whoever answers must be who did when it was wrapped
        options = dict(arguments.get("options") or {})
        checked_timeout(options.get("timeout", original.client.timeout))
        extra = dict(options.pop("extra_json", None) or {})
        attributes = extra.pop(METADATA_KEY, None)
        if extra:
            options["extra_json"] = extra
        batch = self.api.batches.read_requests(arguments["body"], content)
        batch = batch._replace(attributes=attributes or batch.attributes)
        body = batch.body
        if not is_gateway(
            self.pipeline.config, self.api.provider, original.client.base_url
        ):  # to which nothing is added
            body = self.api.batches.filled(body, self.batches.fields_for(batch.attributes))
        return batch, {**arguments, "body": body, "options": options}

    def _get(self, original: OriginalMethods, path: str, **arguments: Any) -> Any:
        return self._noted("get", path, original.get(path, **arguments), arguments)

    async def _aget(self, original: OriginalMethods, path: str, **arguments: Any) -> Any:
        return await self._anoted("get", path, await original.get(path, **arguments), arguments)

    # --- bills that come later -------------------------------------------------------------------------------------

    def _noted(self, verb: str, path: str, answer: Any, arguments: Mapping[str, Any]) -> Any:
        """Take note of an answer that may bring the bill of an earlier call, and return what its caller gets."""
        if verb == "get" and self.api.batches.observes(path):
            return self.api.batches.observe(self.batches, path, answer)
        return self.background.observe(answer, arguments) if self.api.shows_bill(verb, path) else answer

    async def _anoted(self, verb: str, path: str, answer: Any, arguments: Mapping[str, Any]) -> Any:
        if not (self.api.shows_bill(verb, path) or (verb == "get" and self.api.batches.observes(path))):
            return answer
        return await in_thread(self._noted, verb, path, answer, arguments)


def _once(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a ``post`` that does not repeat itself."""
    return {**arguments, "options": {**(arguments.get("options") or {}), "max_retries": 0}}
