"""Calls that were refused while holds far above the bills stood in their way."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.advice.calls import OUTPUT
from llm_cost_middleware.advice.evidence import Evidence, Proposal
from llm_cost_middleware.metering.call_facts import OWN_CAP
from llm_cost_middleware.metering.refused import RefusedCall
from llm_cost_middleware.money import NanoUSD

_RATIO = 3.0
"""Times the bill that is held, from which holds are what blocks."""
_NEAR_S = 3_600.0
_STEP = 256
_UNKNOWN = "whether the refused calls were made again later, and what they were worth"


def blocking_holds(evidence: Evidence) -> Iterator[Proposal]:
    """Budgets that refused calls while several times what is billed was held of them."""
    by_scope: dict[str, list[tuple[RefusedCall, float]]] = {}
    for refused, at in evidence.refusals:
        by_scope.setdefault(refused.scope, []).append((refused, at))
    for scope, refusals in by_scope.items():
        first, last = refusals[0][1] - _NEAR_S, refusals[-1][1] + _NEAR_S
        targets = {refused.target.plain for refused, _ in refusals}
        held = billed = calls = longest = own = 0
        for group in evidence.log.groups:
            if group.key.target not in targets or group.key.failure:
                continue
            near = [index for index, at in enumerate(group.at) if first <= at <= last and group.held[index]]
            calls += len(near)
            held += sum(group.held[index] for index in near)
            billed += sum(group.amounts[index] for index in near)
            longest = max([longest, *(group.columns[OUTPUT][index] for index in near)])
            own += sum(1 for index in near if group.flags[index] & OWN_CAP)
        waits = any(refused.pending_nanousd != 0 for refused, _ in refusals)  # what is not noted may have been held
        if not calls or held < _RATIO * max(billed, 1) or not (waits or any(refused.fits for refused, _ in refusals)):
            continue
        fits = min((refused.fits for refused, _ in refusals if refused.fits), default=0)
        wanted = sum(refused.wanted_nanousd for refused, _ in refusals)
        yield Proposal(
            "holds", "", ", ".join(sorted(map(str, targets))),
            f"{_calls_were(len(refusals))} refused for want of {scope}, while {held / max(billed, 1):.1f} times what "
            "is billed was held",
            _lines(longest, fits, by_callers=own * 2 > calls, waits=waits), None,
            {"scope": scope, "refused": len(refusals), "held_by_bill": round(held / max(billed, 1), 2),
             "longest_answer_tokens": longest, "fitting_tokens": fits or None, "in_flight": waits,
             "refused_wanted_usd": f"{NanoUSD(wanted).usd:f}", "calls_near": calls},
            _UNKNOWN, "", tuple(refused.call_id for refused, _ in refusals[:3]),
        )  # fmt: skip


def _calls_were(count: int) -> str:
    return "a call was" if count == 1 else f"{count:,} calls were"


def _lines(longest: int, fits: int, *, by_callers: bool, waits: bool) -> tuple[str, ...]:
    cap = -(-2 * longest // _STEP) * _STEP
    why = "at least twice the longest answer seen"
    if longest <= fits < cap:  # a cap above it would have been refused as well
        cap, why = fits, "every refused call would fit; the longest answer seen"
    shorter = (
        f"# in the code: max_tokens={cap} instead of more" if by_callers
        else f"default_max_tokens = {cap}            # {why}, {longest:,}"
    )  # fmt: skip
    wait = "max_wait_for_budget_s = 10            # calls in flight give back what they do not use"
    return ("[output]", shorter, wait) if waits else ("[output]", shorter)
