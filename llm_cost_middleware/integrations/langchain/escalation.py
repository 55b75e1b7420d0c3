"""Structured output that does not parse goes up a tier, while the budget lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import merge_configs

from llm_cost_middleware.context import METADATA_KEY
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.langchain.usage import STAMP

if TYPE_CHECKING:
    from llm_cost_middleware.integrations.langchain.governor import Governor


def escalating(chain: Runnable[Any, Any], governor: Governor, model: Any, *, include_raw: bool) -> Runnable[Any, Any]:
    """A chain that asks again, one tier up, as long as the answer does not parse.

    Args:
        chain: A structured-output chain that includes the raw answer.
        governor: The guarded model's.
        model: The guarded model.
        include_raw: Whether the caller wants the raw answer as well.
    """

    def ask(given: Any, config: RunnableConfig) -> Any:
        steps = _climb(governor, model)
        force = next(steps)
        while True:
            outcome: Any
            try:
                outcome = chain.invoke(given, _forced(config, force))
            except Exception as error:  # noqa: BLE001 - one that belongs to a billed answer is looked at, others raised
                outcome = error
            try:
                force = steps.send(outcome)
            except StopIteration as stop:
                return _told(stop.value, include_raw=include_raw)

    async def aask(given: Any, config: RunnableConfig) -> Any:
        steps = _climb(governor, model)
        force = next(steps)
        while True:
            outcome: Any
            try:
                outcome = await chain.ainvoke(given, _forced(config, force))
            except Exception as error:  # noqa: BLE001 - as above
                outcome = error
            try:
                force = steps.send(outcome)
            except StopIteration as stop:
                return _told(stop.value, include_raw=include_raw)

    return RunnableLambda(ask, aask, name="structured_output")


def _climb(governor: Governor, model: Any) -> Any:
    """Yields the model to ask (``None``: as routed), is sent what came of it, and returns what to tell the caller."""
    tiers, reachable = governor.pipeline.config.tiers, governor.targets(model).providers
    failed: Any = None
    force: str | None = None
    while True:
        outcome = yield force
        if isinstance(outcome, BudgetExceededError) and failed is not None:
            return failed  # the first failure is what the caller is told, not that there was no money to repair it
        answered = _answerer(outcome)
        if answered is None:
            return outcome
        failed = outcome
        at = next((index for index, tier in enumerate(tiers) if answered in map(str, tier.models)), len(tiers))
        above = (str(target) for tier in tiers[at + 1 :] for target in tier.models if target.provider in reachable)
        force = next(above, None)
        if force is None:
            return failed


def _answerer(outcome: Any) -> str | None:
    """Who gave an answer that did not parse; ``None`` where it parsed, or where there was no answer at all."""
    if isinstance(outcome, Exception):
        return getattr(outcome, "llm_cost_target", None)
    if outcome.get("parsing_error") is None and outcome.get("parsed") is not None:
        return None
    stamp = outcome["raw"].response_metadata.get(STAMP) or {}
    return stamp.get("model")


def _forced(config: RunnableConfig, force: str | None) -> RunnableConfig:
    if force is None:
        return config
    said = {**((config.get("metadata") or {}).get(METADATA_KEY) or {}), "force_model": force}
    return merge_configs(config, {"metadata": {METADATA_KEY: said}})


def _told(outcome: Any, *, include_raw: bool) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    if include_raw:
        return outcome
    if outcome.get("parsing_error") is not None:
        raise outcome["parsing_error"]
    return outcome["parsed"]
