"""The client that a caller hands a router along with a call: the one that LiteLLM sends it by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler

from llm_cost_middleware.integrations.litellm.group import Group
from llm_cost_middleware.nesting import unwrapped
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import Endpoint

_SDK = (openai.OpenAI, openai.AsyncOpenAI)
_SDK_PROVIDER = "openai"
"""The provider whose chats and embeddings LiteLLM sends by an SDK; all else it sends by its own clients."""
_BY_SDK = ("chat.completions", "embeddings")
_HANDLERS = (HTTPHandler, AsyncHTTPHandler)


def with_sending_client(
    arguments: Mapping[str, Any],
    pipeline: CostPipeline,
    endpoint: Endpoint,
    group: Group | None,
    *,
    asynchronous: bool,
) -> Mapping[str, Any]:
    """Arguments whose client sends once, and books nothing by itself; a copy, as LiteLLM writes into the one it gets.

    Raises:
        TypeError: LiteLLM cannot send a chat by it, or would send it and lose the answer that was paid.
    """
    client = arguments.get("client")
    if client is None:
        return arguments
    client = unwrapped(client, pipeline)
    is_sdk = issubclass(type(client), _SDK)  # of the object itself: a stand-in of a test is sent by as it is
    given = {**arguments, "client": client.with_options(max_retries=0) if is_sdk else client}
    if group is None or group.alternatives:
        return given
    chat, by_sdk = endpoint in _BY_SDK, group.target.provider == _SDK_PROVIDER
    other_sdk = not is_sdk and any(kind.__module__.partition(".")[0] in NAMES for kind in type(client).__mro__)
    if other_sdk or (is_sdk and not (chat and by_sdk)):  # LiteLLM does without it, but for some ways that fail
        return {name: value for name, value in arguments.items() if name != "client"}
    unfit = (*_HANDLERS, _SDK[not asynchronous]) if by_sdk else (_HANDLERS[not asynchronous],)
    if chat and (issubclass(type(client), unfit) or not hasattr(client, "chat" if by_sdk else "post")):
        wanted = (_SDK if by_sdk else _HANDLERS)[asynchronous]
        raise TypeError(f"the client of this call must be an {wanted.__name__}, not an {type(client).__name__}")
    return given
