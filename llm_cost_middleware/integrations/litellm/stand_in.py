"""An object that stands in for the ``litellm.Router`` it holds: what it does not define itself is that router's."""

from __future__ import annotations

import asyncio
import copy
import inspect
from functools import partial, wraps
from typing import Any, Self

import litellm

from llm_cost_middleware.integrations.litellm.booking import UngovernedCall, let_pass
from llm_cost_middleware.integrations.litellm.entry_points import retire
from llm_cost_middleware.integrations.litellm.groups import Groups
from llm_cost_middleware.integrations.litellm.surface import CARRYING, HARMLESS, NEW, RETRIEVING, UNGOVERNED
from llm_cost_middleware.integrations.litellm.usage import settle_retrieved
from llm_cost_middleware.integrations.litellm.workarounds import forget_when_dropped
from llm_cost_middleware.pipeline import CostPipeline


def _nothing() -> None:
    """What there is to forget of a router that others made."""


class StandIn:
    """Attributes are read, set and deleted on the router that is held, apart from the few defined here and below.

    LiteLLM refuses subclasses from 1.110 on. ``isinstance(x, litellm.Router)`` is true by ``__class__`` all the same,
    as with a ``unittest.mock.Mock`` that has a ``spec``: LiteLLM asks it before it applies what a router promises.

    Args:
        held: The router.
        pipeline: The pipeline that governs its calls.
        given: It is somebody else's: nothing of it is changed.
    """

    def __init__(self, held: Any, pipeline: CostPipeline, *, given: bool) -> None:
        # one of our own is taken apart: governed twice, a call would be booked twice
        held = vars(held)["_held"] if isinstance(held, StandIn) else held
        vars(self).update(
            pipeline=pipeline,
            _held=held,
            _groups=Groups(held, pipeline.catalogue, lambda: pipeline.config.platforms),
            _forget=_nothing if given else forget_when_dropped(held),
        )

    @property  # type: ignore[misc]  # mypy: every class has it as an attribute
    def __class__(self) -> Any:
        return litellm.Router

    def __getattr__(self, name: str) -> Any:
        if "_held" not in vars(self):  # being copied or unpickled: there is nothing to ask yet
            raise AttributeError(name)
        found = getattr(vars(self)["_held"], name)
        if name in CARRYING:
            return wraps(found)(partial(self._carry, found, f"Router.{name}"))
        private = name.startswith("_") and name not in UNGOVERNED
        if name in RETRIEVING:
            return wraps(found)(partial(self._aretrieve, found))
        if private or name in HARMLESS or not inspect.isroutine(found):
            return found
        passing = self._apass if inspect.iscoroutinefunction(found) else self._pass
        return wraps(found)(partial(passing, found, f"Router.{name}", UNGOVERNED.get(name, NEW)))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) or hasattr(type(self), name):
            vars(self)[name] = value
        else:
            setattr(self._held, name, value)

    def __delattr__(self, name: str) -> None:
        if name in vars(self) or hasattr(type(self), name):
            object.__delattr__(self, name)
        else:
            delattr(self._held, name)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(type(self)), *dir(self._held)})

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        held = copy.copy(self._held)
        # LiteLLM reports what calls came to to the router that was made first: it must live as long as its copies
        vars(twin).update(
            vars(self),
            _held=held,
            _groups=Groups(held, self.pipeline.catalogue, lambda: self.pipeline.config.platforms),
            _copied=self._held,
        )
        vars(twin).update(_forget=_nothing)
        vars(twin).pop("chat", None)  # it asks the router that it was read off
        return twin

    def retire(self) -> None:
        """As of ``litellm.Router``: it leaves LiteLLM's global lists, and keeps serving calls."""
        self._forget()
        retire(self._held)

    discard = retire

    # --- what is not governed --------------------------------------------------------------------------------------

    def _pass(self, method: Any, what: str, advice: str, /, *args: Any, **kwargs: Any) -> Any:
        passing = let_pass(self.pipeline, what, advice, kwargs)
        answer = method(*args, **kwargs)
        if inspect.isawaitable(answer):  # not every method that is asynchronous says so
            return self._awaited(passing, answer)
        passing.book_answer(answer)
        return answer

    def _carry(self, method: Any, what: str, /, *args: Any, **kwargs: Any) -> Any:
        self.pipeline.keep_inside(what, None)  # where LiteLLM sends it is not known before
        return method(*args, **kwargs)

    async def _aretrieve(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await method(*args, **kwargs)
        await asyncio.to_thread(settle_retrieved, self.pipeline, answer)
        return answer

    async def _apass(self, method: Any, what: str, advice: str, /, *args: Any, **kwargs: Any) -> Any:
        passing = await asyncio.to_thread(let_pass, self.pipeline, what, advice, kwargs)
        return await self._awaited(passing, method(*args, **kwargs))

    async def _awaited(self, passing: UngovernedCall, answering: Any) -> Any:
        answer = await answering
        await asyncio.to_thread(passing.book_answer, answer)
        return answer
