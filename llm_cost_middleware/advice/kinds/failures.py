"""Attempts that were, or may have been, billed and brought no answer: cut connections, timeouts, unreadable answers."""

from __future__ import annotations

from collections.abc import Iterator

from llm_cost_middleware.advice.calls import CallGroup
from llm_cost_middleware.advice.evidence import Change, Evidence, Proposal, examples, named
from llm_cost_middleware.advice.pricing import Served
from llm_cost_middleware.provider import FailureKind
from llm_cost_middleware.routing.signals import PARSE_FAILED

_FEW = 5
_UNKNOWN = (
    "an attempt that was never answered is booked at the most that it can have cost; the saving takes for it what the "
    "answered attempt of the same call cost"
)


class _Never(Change):
    """It would not have failed, so nothing would have been paid for it."""

    def __init__(self, groups: list[CallGroup], answered: dict[str, int]) -> None:
        super().__init__(groups)
        self._answered = answered

    def after(self, group: CallGroup, index: int, served: Served) -> None:
        """See ``Change``."""

    def likely(self, group: CallGroup, index: int) -> int:
        """See ``Change``."""
        return min(group.amounts[index], self._answered.get(group.ids[index], group.amounts[index]))


def paid_failures(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites at which attempts failed that were billed, by kind of failure."""
    failed = {id_ for group in evidence.log.groups if group.key.failure for id_ in group.ids}
    answered = {
        id_: amount
        for group in evidence.log.groups if not group.key.failure and failed
        for id_, amount in zip(group.ids, group.amounts, strict=True) if id_ in failed
    }  # fmt: skip
    for (site, target), groups in evidence.by_site(failed=True):
        for kind in dict.fromkeys(group.key.failure for group in groups):
            own = [group for group in groups if group.key.failure == kind]
            calls = sum(map(len, own))
            if calls < _FEW:
                continue
            yield Proposal(
                "failure", site, str(target),
                f"{calls:,} attempts of {named(site)} failed ({_WORDS.get(kind, kind)}) and were billed",
                _lines(kind, site, target.provider), _Never(own, answered),
                {"failure": kind, "attempts": calls,
                 "answered_later": sum(id_ in answered for group in own for id_ in group.ids)},
                _UNKNOWN, "look at three of them: llm-cost decisions --call ID", examples(own),
            )  # fmt: skip


_WORDS = {
    PARSE_FAILED: "the answer could not be parsed",
    FailureKind.TIMEOUT.value: "nothing came within the timeout",
}


def _lines(kind: str, site: str, provider: str) -> tuple[str, ...]:
    if kind == PARSE_FAILED:
        return (
            f"# in the code of {named(site)}: ask for a schema that the provider enforces (response_format,",
            "# with_structured_output), and leave room for the whole answer:",
            "[output]", 'default_max_tokens = "auto"',
        )  # fmt: skip
    if kind == FailureKind.TIMEOUT.value:
        return (f"[providers.{provider}]", "timeout_s = 600                      # the provider goes on, and bills")
    return ("[retry]", "max_attempts = 1                     # or mend the connection: what fails there is billed")
