"""Prompts a little longer than where the price of a model steps up: every token of such a call costs more."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.advice.calls import INPUT, OUTPUT, READ, WRITES, CallGroup, Tokens
from llm_cost_middleware.advice.evidence import MIN_CALLS, Change, Evidence, Proposal, examples, named
from llm_cost_middleware.advice.pricing import Pricer, Served

_JUST_ABOVE = 0.25
"""Share of the step by which a prompt may lie above it and still be worth shortening."""
_FEW = 5
_UNKNOWN = "whether the answers stay as good without what is left out"
_LEARN = "leave the oldest turns or the least relevant passages out for some calls, and compare their outcomes"


class _Shortened(Change):
    """The prompt cut down to the step, what is paid most for first."""

    def __init__(self, groups: list[CallGroup], pricer: Pricer) -> None:
        super().__init__(groups)
        self._pricer = pricer

    def after(self, group: CallGroup, index: int, served: Served) -> Served:
        """See ``Change``."""
        step = _step(self._pricer, served, group.at[index])
        return served if step is None else served._replace(tokens=without(served.tokens, step[1]))


def without(tokens: Tokens, count: int, order: tuple[int, ...] = (INPUT, *WRITES, READ)) -> Tokens:
    """The usage with so many input tokens less, taken from the buckets in an order."""
    left = list(tokens)
    for bucket in order:
        taken = min(left[bucket], count)
        left[bucket] -= taken
        count -= taken
    return tuple(left)


def _step(pricer: Pricer, served: Served, at: float) -> tuple[int, int] | None:
    """The step that a prompt lies just above, and by how many tokens."""
    levels = pricer.levels(served.provider, served.model, served.terms, at)
    if levels is None or len(levels) < 2:  # noqa: PLR2004 - a flat price
        return None
    whole = sum(served.tokens[:OUTPUT])
    above = next((level[0] for level in reversed(levels[1:]) if whole > level[0]), None)
    if above is None or whole > above * (1 + _JUST_ABOVE):
        return None
    return above, whole - above


def price_steps(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites whose prompts often lie just above a step."""
    for (site, target), groups in evidence.by_site():
        if sum(map(len, groups)) < MIN_CALLS:
            continue
        above: list[tuple[int, int]] = []
        kept: list[CallGroup] = []
        for group in groups:
            if not group.key.known:
                continue
            levels = evidence.pricer.levels(group.key.provider, group.key.billed, group.key.terms, group.at[0])
            if levels is None or len(levels) < 2:  # noqa: PLR2004 - a flat price
                continue
            found = [
                pair for at, tokens in zip(group.at, group.tokens(), strict=True)
                if (pair := _step(evidence.pricer, Served.of(group, tokens), at)) is not None
            ]  # fmt: skip
            if found:
                above += found
                kept.append(group)
        if len(above) < _FEW:
            continue
        step, most = above[0][0], max(over for _, over in above)
        yield Proposal(
            "step", site, str(target),
            f"{len(above):,} prompts of {named(site)} are up to {most:,} tokens longer than {step:,}, where every "
            "token begins to cost more",
            (f"# in the code of {named(site)}: keep prompts at {step:,} tokens, for example with LangChain:",
             f'# trim_messages(messages, max_tokens={step}, strategy="last", token_counter=model)'),
            _Shortened(kept, evidence.pricer), {"step_tokens": step, "calls_above": len(above), "most_over": most},
            _UNKNOWN, _LEARN, examples(kept),
        )  # fmt: skip
