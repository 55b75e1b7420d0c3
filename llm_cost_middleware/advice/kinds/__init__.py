"""Kinds of waste, a file each: a pure function from the evidence to proposals."""

from collections.abc import Callable, Iterable, Mapping

from llm_cost_middleware.advice.evidence import Evidence, Proposal
from llm_cost_middleware.advice.kinds.caches import lost_caches
from llm_cost_middleware.advice.kinds.caps import cut_answers
from llm_cost_middleware.advice.kinds.efforts import lower_efforts
from llm_cost_middleware.advice.kinds.failures import paid_failures
from llm_cost_middleware.advice.kinds.holds import blocking_holds
from llm_cost_middleware.advice.kinds.patience import patience
from llm_cost_middleware.advice.kinds.siblings import cheaper_siblings
from llm_cost_middleware.advice.kinds.steps import price_steps
from llm_cost_middleware.advice.kinds.tools import unused_tools

KINDS: Mapping[str, Callable[[Evidence], Iterable[Proposal]]] = {
    "sibling": cheaper_siblings,
    "effort": lower_efforts,
    "patience": patience,
    "cache": lost_caches,
    "step": price_steps,
    "failure": paid_failures,
    "tools": unused_tools,
    "holds": blocking_holds,
    "cap": cut_answers,
}
"""By name, as advice carries it."""

__all__ = ["KINDS"]
