"""ModelRef models: LangChain's own classes, made to send exactly one request and to keep the provider's usage.

Three things differ from the user's class: the SDK does not retry (every hidden attempt would spend without a
reservation), every event loop has an asynchronous client of its own (a pooled connection of a loop that is gone sends
the request and then fails to read the answer), and the provider's usage events ride along on the chunks they became.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any

from llm_cost_middleware.integrations.langchain.usage import RAW_USAGE_KEY


class LoopClients:
    """One asynchronous SDK client an event loop. It is closed when its loop shuts its asynchronous generators down."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = Lock()
        self._clients: dict[int, tuple[asyncio.AbstractEventLoop, Any, AsyncGenerator[None, None]]] = {}

    def get(self) -> Any:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        entry = self._clients.get(id(loop))
        if entry is not None and entry[0] is loop:
            return entry[1]
        with self._lock:
            # ids of loops are used again, so entries of dead ones must go
            for key in [key for key, (other, _, _) in self._clients.items() if other.is_closed()]:
                del self._clients[key]  # a loop that was closed without ceremony
            client = self._make()
            keeper = self._keep(id(loop), client)
            with suppress(StopIteration):  # the first step registers the generator with the loop, and suspends nowhere
                keeper.__anext__().send(None)
            self._clients[id(loop)] = (loop, client, keeper)
            return client

    async def _keep(self, key: int, client: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._clients.pop(key, None)
            await client.close()


def make_single_attempt(model: Any, provider: str) -> Any:
    """Make a freshly built chat model send single attempts, in place. Its SDK must have been built with no retries."""
    kind, make_client = _KINDS[provider]
    clients = LoopClients(make_client(model))
    object.__setattr__(model, "__class__", kind(type(model)))
    object.__setattr__(model, "_llm_cost_clients", clients)
    return model


@cache
def _anthropic_kind(base: Any) -> Any:
    def keep_event(self: Any, event: Any, **options: Any) -> Any:
        chunk, block = base._make_message_chunk_from_anthropic_event(self, event, **options)  # noqa: SLF001 - the seam
        if chunk is not None and event.type in ("message_start", "message_delta"):
            chunk.response_metadata[RAW_USAGE_KEY] = event
        return chunk, block

    return type(base)(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "_make_message_chunk_from_anthropic_event": keep_event,
            "_async_client": property(lambda self: self._llm_cost_clients.get()),
        },
    )


def _anthropic_client(model: Any) -> Callable[[], Any]:
    import anthropic

    def make() -> Any:
        options = dict(model._client_params)  # noqa: SLF001 - what ChatAnthropic builds its own client from
        transport: dict[str, Any] = {"base_url": options["base_url"] or "https://api.anthropic.com"}
        if "timeout" in options:
            transport["timeout"] = options["timeout"]
        if model.anthropic_proxy:
            transport["proxy"] = model.anthropic_proxy
        return anthropic.AsyncAnthropic(**options, http_client=anthropic.DefaultAsyncHttpxClient(**transport))

    return make


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

    kind = type(base)(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "_convert_chunk_to_generation_chunk": keep_chunk,
        },
    )
    # the fields of these names are shadowed after the class was made: pydantic refuses it inside the class body
    kind.root_async_client = property(lambda self: self._llm_cost_clients.get())
    kind.async_client = property(lambda self: self._llm_cost_clients.get().chat.completions)
    return kind


def _openai_client(model: Any) -> Callable[[], Any]:
    import openai

    template, proxy = model.root_async_client, model.openai_proxy
    own = None if proxy else model.http_async_client  # a transport of the user is the user's to keep loop-safe

    def make() -> Any:
        if own is not None:
            return template.with_options(max_retries=0)
        options = {"base_url": template.base_url, "timeout": template.timeout, **({"proxy": proxy} if proxy else {})}
        return template.with_options(max_retries=0, http_client=openai.DefaultAsyncHttpxClient(**options))

    return make


_KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Callable[[], Any]]]] = {
    "anthropic": (_anthropic_kind, _anthropic_client),
    "openai": (_openai_kind, _openai_client),
}
