"""The batch methods of a router, made of its governed ``acompletion``: each request is a call of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

_Ask = Callable[..., Awaitable[Any]]


async def ask_all(ask: _Ask, models: Sequence[str], messages: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """One conversation to every model, or each of many to every model; an error stands in its answer's place.

    Args:
        ask: ``acompletion``.
        models: The names to ask.
        messages: A conversation, or a list of them.
        kwargs: As of ``acompletion``.

    Returns:
        An answer a model; for a list of conversations, a list of them a conversation.
    """
    if all(isinstance(message, dict) for message in messages):
        return await asyncio.gather(*(_or_error(ask, model, messages, kwargs) for model in models))
    asked = [asyncio.gather(*(_or_error(ask, model, one, kwargs) for model in models)) for one in messages]
    return list(await asyncio.gather(*asked))


async def ask_each(ask: _Ask, model: str, conversations: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Many conversations to one model; an error stands in its answer's place."""
    return await asyncio.gather(*(_or_error(ask, model, one, kwargs) for one in conversations))


async def ask_fastest(ask: _Ask, models: Sequence[str], messages: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One conversation to every model: the first answer. The other calls are cancelled, and booked as such.

    Raises:
        Exception: None answered, as LiteLLM raises it; caused by an ``ExceptionGroup`` of why.
    """
    pending = {asyncio.create_task(_or_error(ask, model, messages, kwargs)) for model in models}
    errors: list[Exception] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            answers = [task.result() for task in done]
            errors += (answer for answer in answers if isinstance(answer, Exception))
            won, *late = [answer for answer in answers if not isinstance(answer, Exception)] or [None]
            if won is not None:
                for stream in late:  # it came in the same moment, and nobody will read it
                    if hasattr(stream, "aclose"):
                        await stream.aclose()
                if isinstance(hidden := getattr(won, "_hidden_params", None), dict):
                    hidden["fastest_response_batch_completion"] = True  # as LiteLLM marks it
                return won
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)  # a cancelled call is booked before this returns
    # hosts catch what the plain router raises, a bare Exception; the reasons are one step behind it
    raise Exception("All tasks failed") from ExceptionGroup("all calls failed", errors)  # noqa: TRY002 - as LiteLLM


async def _or_error(ask: _Ask, model: str, messages: Any, kwargs: dict[str, Any]) -> Any:
    try:
        return await ask(model=model, messages=messages, **kwargs)
    except Exception as error:  # noqa: BLE001 - as LiteLLM's: the others are answered all the same
        return error
