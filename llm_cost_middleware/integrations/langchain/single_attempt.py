"""Target models: LangChain's own classes, made to send exactly one request and to keep the provider's usage.

They send through the clients that the user's model holds at that moment, given, assigned or patched ones included.
Three things differ from the user's class: the SDK does not retry (every hidden attempt would spend without a
reservation); where the asynchronous client is LangChain's own, every event loop has connections of its own (a pooled
connection of a loop that is gone sends the request and then fails to read the answer); and the provider's usage events
ride along on the chunks they became.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.host import retries_of
from llm_cost_middleware.integrations.langchain.usage import RAW_USAGE_KEY
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import RetryTerms
from llm_cost_middleware.sdk_clients.single_attempt import client_of, single_attempt


class LoopTransports:
    """One asynchronous HTTP client an event loop. It is closed when its loop shuts its asynchronous generators down."""

    _lock = ForkSafeLock()

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._open: dict[int, tuple[asyncio.AbstractEventLoop, Any, AsyncGenerator[None, None]]] = {}

    def get(self) -> Any:
        """The HTTP client of the running loop."""
        loop = asyncio.get_running_loop()
        entry = self._open.get(id(loop))
        if entry is not None and entry[0] is loop:
            return entry[1]
        with self._lock:
            # ids of loops are used again, so entries of dead ones must go
            for key in [key for key, (other, _, _) in self._open.items() if other.is_closed()]:
                del self._open[key]  # a loop that was closed without ceremony
            transport = self._make()
            keeper = self._keep(id(loop), transport)
            with suppress(StopIteration):  # the first step registers the generator with the loop, and suspends nowhere
                keeper.__anext__().send(None)
            self._open[id(loop)] = (loop, transport, keeper)
            return transport

    async def _keep(self, key: int, transport: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._open.pop(key, None)
            await transport.aclose()


class HeldClients:
    """The clients that a user's model holds, to send single attempts through.

    Args:
        model: The model, whose fields are read at each use.
        provider: Whose API it speaks.
        pipeline: Governs the calls.
    """

    def __init__(self, model: Any, provider: str, pipeline: CostPipeline) -> None:
        self._model, self._provider, self._pipeline = model, provider, pipeline
        self._transports = LoopTransports(self._make_transport)

    def get(self, name: str) -> Any:
        """The client or the resource under ``name``, made to send once; ``None`` where the model has none."""
        held = getattr(self._model, name)
        if held is None:
            return None
        own = "async" in name and self._is_langchains(held)
        return single_attempt(held, self._provider, self._pipeline, self._transports.get() if own else None)

    @property
    def timeout(self) -> Any:
        """What the clients of the model say: seconds, an object of the SDK's, or ``None`` for no end."""
        client = self._client()
        if client is None and self._provider == "anthropic":  # made of the fields when it sends
            client = getattr(self._model, "_client")  # noqa: B009 - a property of LangChain's
        return getattr(client, "timeout", None)

    @property
    def retry_terms(self) -> RetryTerms | None:
        """The retries that the model's owner set, on the model or on a client of their own."""
        model, client = self._model, self._client()
        chosen = "max_retries" in model.model_fields_set and model.max_retries is not None
        if client is None or self._is_langchains(client):  # made from the fields of the model
            return retries_of(model, asked=model.max_retries) if chosen else None
        return retries_of(client)

    def _client(self) -> Any:
        """A client that the model has; ``None`` where it makes one only when it sends."""
        fields = vars(self._model)
        held = [client for name in _FIELDS[self._provider] if (client := client_of(fields.get(name))) is not None]
        # one that the user put there says what they want; LangChain's own say what the fields say
        return next((client for client in held if not self._is_langchains(client)), held[0] if held else None)

    def _is_langchains(self, held: Any) -> bool:
        """Whether LangChain made it, over its own connections: those of the user are the user's to keep loop-safe."""
        client = client_of(held)
        transport = getattr(client, "_client", None)
        if transport is None:
            return False
        if type(client).__name__ in _AZURES:  # LangChain leaves their connections to the SDK
            made = client in (self._model.root_client, self._model.root_async_client)
            return made and type(transport).__name__.endswith("HttpxClientWrapper")
        proxied = getattr(self._model, "openai_proxy", None) and transport is self._model.http_async_client
        return bool(proxied) or type(transport).__module__.startswith("langchain_")

    def _make_transport(self) -> Any:
        """The HTTP client of one event loop, as LangChain makes the one it shares between loops."""
        if self._provider == "openai":
            import openai

            template, proxy = self._model.root_async_client, self._model.openai_proxy
            proxy = None if type(template).__name__ in _AZURES else proxy  # LangChain gives it to the others alone
            options = {"base_url": template.base_url, "timeout": template.timeout}
            return openai.DefaultAsyncHttpxClient(**options, **({"proxy": proxy} if proxy else {}))
        import anthropic

        params = self._model._client_params  # noqa: SLF001 - what ChatAnthropic builds its own client from
        options = {name: params[name] for name in ("timeout",) if name in params}
        if self._model.anthropic_proxy:
            options["proxy"] = self._model.anthropic_proxy
        base_url = params["base_url"] or "https://api.anthropic.com"
        return anthropic.DefaultAsyncHttpxClient(base_url=base_url, **options)


_AZURES = frozenset({"AzureOpenAI", "AsyncAzureOpenAI"})
_FIELDS = {
    "anthropic": ("_client", "_async_client"),
    "openai": ("client", "root_client", "async_client", "root_async_client"),
}


def make_single_attempt(model: Any, provider: str, clients: HeldClients) -> Any:
    """Make a freshly built chat model send single attempts, in place.

    Args:
        model: The model.
        provider: Whose API it speaks.
        clients: What to send through.
    """
    kind = _KINDS[provider](type(model))
    object.__setattr__(model, "_llm_cost_clients", clients)
    object.__setattr__(model, "__class__", kind)
    return model


def _shadow_clients(kind: Any, provider: str) -> Any:
    # after the class was made: some are fields, which pydantic does not let a class body shadow
    for name in _FIELDS[provider]:
        setattr(kind, name, property(partial(_held, name)))
    return kind


def _held(name: str, model: Any) -> Any:
    return model._llm_cost_clients.get(name)  # noqa: SLF001 - our own


@cache
def _anthropic_kind(base: Any) -> Any:
    def keep_event(self: Any, event: Any, **options: Any) -> Any:
        chunk, block = base._make_message_chunk_from_anthropic_event(self, event, **options)  # noqa: SLF001 - the seam
        if chunk is not None and event.type in ("message_start", "message_delta"):
            chunk.response_metadata[RAW_USAGE_KEY] = event
        return chunk, block

    kind = type(base)(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "_make_message_chunk_from_anthropic_event": keep_event,
        },
    )
    return _shadow_clients(kind, "anthropic")


@cache
def _openai_kind(base: Any) -> Any:
    def keep_chunk(self: Any, chunk: Any, *rest: Any) -> Any:
        made = base._convert_chunk_to_generation_chunk(self, chunk, *rest)  # noqa: SLF001 - the seam
        if made is not None:
            event = chunk.get("chunk") or chunk  # the SDK's structured stream wraps it
            choices = event.get("choices")
            if event.get("usage") or (choices and choices[0].get("finish_reason")):
                made.message.response_metadata[RAW_USAGE_KEY] = event
        return made

    def keep_answer(self: Any, response: Any, *rest: Any, **named: Any) -> Any:
        try:
            return base._create_chat_result(self, response, *rest, **named)  # noqa: SLF001 - the seam
        except Exception as error:
            # one that LangChain gives nobody, as of Azure's content filter, was billed
            if getattr(error, "completion", None) is None:
                error.completion = response  # type: ignore[attr-defined]  # where the SDK leaves its own
            raise

    kind = type(base)(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "_convert_chunk_to_generation_chunk": keep_chunk,
            "_create_chat_result": keep_answer,
        },
    )
    return _shadow_clients(kind, "openai")


_KINDS: dict[str, Callable[[Any], Any]] = {"anthropic": _anthropic_kind, "openai": _openai_kind}
