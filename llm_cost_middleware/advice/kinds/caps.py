"""Answers that end at their output cap: paid for, and cut off."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.advice.evidence import MIN_CALLS, Evidence, Proposal, examples, named
from llm_cost_middleware.metering.call_facts import CUT, OWN_CAP
from llm_cost_middleware.money import NanoUSD

_SHARE = 0.05
_UNKNOWN = "how long the answers would have been, and whether a cut one was of use"


def cut_answers(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites of which many answers are cut off."""
    for (site, target), groups in evidence.by_site():
        calls = sum(map(len, groups))
        cut = paid = own = 0
        cap = 0
        for group in groups:
            for flags, amount, most in zip(group.flags, group.amounts, group.caps, strict=True):
                if flags & CUT:
                    cut, paid, own, cap = cut + 1, paid + amount, own + bool(flags & OWN_CAP), max(cap, most)
        if calls < MIN_CALLS or cut < _SHARE * calls:
            continue
        lines = (
            (f"# in the code of {named(site)}:", f"max_tokens = {4 * cap}") if own * 2 > cut
            else ("[output]", 'default_max_tokens = "auto"           # by model, reasoning counted')
        )  # fmt: skip
        yield Proposal(
            "cap", site, str(target),
            f"{cut:,} of {calls:,} answers of {named(site)} were cut off at {cap:,} tokens; {NanoUSD(paid)} was paid "
            "for them",
            lines, None,
            {"cut": cut, "calls": calls, "cap_tokens": cap, "paid_for_cut_usd": f"{NanoUSD(paid).usd:f}"},
            _UNKNOWN, "raise the cap for a day and look at the lengths: llm-cost report --by site",
            examples(groups, lambda group, index: bool(group.flags[index] & CUT)),
        )  # fmt: skip
