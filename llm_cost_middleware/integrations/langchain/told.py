"""What a message says of its money once its call is booked: under ``llm_cost`` in its ``response_metadata``.

``call_id``, ``attempt`` and ``model`` as sent; ``cost``, what the whole call was booked at, and ``run_left``, what its
run, or the slice that it runs in, has left, where that has a limit: US dollars, as text. A stream carries the last two
on its last chunk, which is handed on when the stream is booked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.call_ids import BOOKED_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.outputs import ChatGenerationChunk, ChatResult

    from llm_cost_middleware.pipeline import CostPipeline
    from llm_cost_middleware.request import CallRequest


def told(pipeline: CostPipeline, request: CallRequest, result: ChatResult) -> ChatResult:
    """An answer, saying what it cost."""
    message: Any = result.generations[0].message
    if (call_id := _call_id(message)) is not None:
        _write(message, pipeline.told(call_id, request.context.scopes))
    return result


async def atold(pipeline: CostPipeline, request: CallRequest, result: ChatResult) -> ChatResult:
    """``told``, on an event loop."""
    message: Any = result.generations[0].message
    if (call_id := _call_id(message)) is not None:
        _write(message, await _facts(pipeline, call_id, request))
    return result


def told_at_end(pipeline: CostPipeline, request: CallRequest, governed: Any) -> Generator[ChatGenerationChunk]:
    """The chunks of a stream; the last one says what the stream cost."""
    last = None
    with governed as chunks:
        for chunk in chunks:
            if last is not None:
                yield last
            last = chunk if chunk.message.usage_metadata is not None else None
            if last is None:
                yield chunk
    if last is not None:
        _write(last.message, pipeline.told(governed.call_id, request.context.scopes))
        yield last


async def atold_at_end(
    pipeline: CostPipeline, request: CallRequest, governed: Any
) -> AsyncGenerator[ChatGenerationChunk]:
    """``told_at_end``, on an event loop."""
    last = None
    async with governed as chunks:
        async for chunk in chunks:
            if last is not None:
                yield last
            last = chunk if chunk.message.usage_metadata is not None else None
            if last is None:
                yield chunk
    if last is not None:
        _write(last.message, await _facts(pipeline, governed.call_id, request))
        yield last


async def _facts(pipeline: CostPipeline, call_id: str, request: CallRequest) -> Mapping[str, str]:
    scopes = request.context.scopes
    if pipeline.ledger_blocks:
        return await asyncio.to_thread(pipeline.told, call_id, scopes)
    return pipeline.told(call_id, scopes)


def _call_id(message: Any) -> str | None:
    stamp = message.response_metadata.get(BOOKED_KEY)
    return stamp.get("call_id") if stamp else None


def _write(message: Any, facts: Mapping[str, str]) -> None:
    """Write facts on a message of ours; on a chunk alone, so that adding chunks up repeats no text."""
    metadata = message.response_metadata
    message.response_metadata = {**metadata, BOOKED_KEY: {**metadata.get(BOOKED_KEY, {}), **facts}}
