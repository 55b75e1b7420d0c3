"""LangChain: ``guard`` a model, ``instrument`` a chain, steer an agent, meter the rest.

::

    chain = instrument(prompt | ChatAnthropic(model="claude-sonnet-4-6") | parser, pipeline)
    chain.invoke({"question": "..."}, config={"metadata": {"llm_cost": {"user": "42"}}})

A wrapper steers, a listener meters: ``guard`` and everything built on it route, hold, retry, cache and book;
``CostCallbackHandler`` vetoes and books what nobody wrapped, and leaves alone what is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.extras import needed_for

if TYPE_CHECKING:
    from llm_cost_middleware.integrations.langchain.agents import CostMiddleware
    from llm_cost_middleware.integrations.langchain.batches import batch_progress
    from llm_cost_middleware.integrations.langchain.callback import CostCallbackHandler, cost_tracking
    from llm_cost_middleware.integrations.langchain.chains import FoundModel, instrument
    from llm_cost_middleware.integrations.langchain.endings import ends_softly
    from llm_cost_middleware.integrations.langchain.guarded import guard, is_guarded

_HOMES = {
    "batch_progress": "batches",
    "CostCallbackHandler": "callback",
    "CostMiddleware": "agents",
    "FoundModel": "chains",
    "cost_tracking": "callback",
    "ends_softly": "endings",
    "guard": "guarded",
    "instrument": "chains",
    "is_guarded": "guarded",
}

__all__ = [
    "CostCallbackHandler",
    "CostMiddleware",
    "FoundModel",
    "batch_progress",
    "cost_tracking",
    "ends_softly",
    "guard",
    "instrument",
    "is_guarded",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed_for(name):
        return getattr(import_module(f"{__name__}.{home}"), name)
