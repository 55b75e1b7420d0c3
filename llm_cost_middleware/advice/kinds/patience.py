"""Calls that nobody waits for, at the price of those that are served at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from llm_cost_middleware.advice.calls import CallGroup
from llm_cost_middleware.advice.evidence import MIN_CALLS, Change, Evidence, Proposal, examples, named, quoted
from llm_cost_middleware.advice.pricing import Pricer, Served
from llm_cost_middleware.metering.call_facts import STREAM

_BURST_S = 1.0
"""Seconds between two calls of a burst at most."""
_BURSTS, _NIGHT = 0.8, 0.9
_NIGHT_HOURS = frozenset({22, 23, 0, 1, 2, 3, 4, 5})
_WAYS = (("1h", (("service_tier", "flex"),)), ("24h", (("batch", True),)))
"""How long to wait for it, and the terms: OpenAI's flex processing; batches, which both providers end within a day."""
_UNKNOWN = "whether somebody waits for these answers all the same: that is inferred, and no log can tell"
_LEARN = "ask whoever owns the site; patience holds for it alone, and a call overrides it: cost_context(patience=0)"


class _Later(Change):
    """The same call on other terms."""

    def __init__(self, groups: list[CallGroup], terms: tuple[tuple[str, object], ...]) -> None:
        super().__init__(groups)
        self._terms = terms

    def after(self, group: CallGroup, index: int, served: Served) -> Served:
        """See ``Change``."""
        del group, index
        return served._replace(terms=self._terms)


def patience(evidence: Evidence) -> Iterator[Proposal]:
    """Call sites that look as if no caller waited: never streamed, and made in bursts or at night."""
    for (site, target), every in evidence.by_site():
        groups = [group for group in every if group.key.known and not _patient(group)]
        calls = sum(map(len, groups))
        if calls < MIN_CALLS or not site or any(flags & STREAM for group in groups for flags in group.flags):
            continue
        moments = sorted(at for group in groups for at in group.at)
        burst = sum(b - a <= _BURST_S for a, b in pairwise(moments)) / (calls - 1)
        night = sum(evidence.hour_of(at) in _NIGHT_HOURS for at in moments) / calls
        if burst < _BURSTS and night < _NIGHT:
            continue
        wait, terms = next((way for way in _WAYS if _cheaper(evidence.pricer, groups, way[1])), ("", ()))
        if not wait:
            continue
        looks = f"{burst:.0%} of its calls follow another within a second" if burst >= _BURSTS else ""
        dark = f"{night:.0%} are made at night" if night >= _NIGHT else ""
        yield Proposal(
            "patience", site, str(target),
            f"nobody seems to wait for {named(site)}: nothing is streamed, {' and '.join(filter(None, (looks, dark)))}",
            (f"[routing.sites.{quoted(site)}]", f'patience = "{wait}"'), _Later(groups, terms),
            {"inferred": True, "bursts": round(burst, 3), "night": round(night, 3), "streamed": 0,
             "served": "flex" if wait == "1h" else "batch"},
            _UNKNOWN, _LEARN, examples(groups),
        )  # fmt: skip


def _patient(group: CallGroup) -> bool:
    terms = dict(group.key.terms)
    return bool(terms.get("batch")) or terms.get("service_tier") in {"flex", "priority", "batch"}


def _cheaper(pricer: Pricer, groups: list[CallGroup], terms: tuple[tuple[str, object], ...]) -> bool:
    """Whether a model is served on these terms, for less."""
    key, at = groups[0].key, groups[0].at[-1]
    tokens = (1_000, 0, 0, 0, 0, 1_000, 0)
    now = pricer.cost(Served(key.provider, key.billed, key.terms, tokens), at)
    then = pricer.cost(Served(key.provider, key.billed, terms, tokens), at)
    return now is not None and then is not None and then < now
