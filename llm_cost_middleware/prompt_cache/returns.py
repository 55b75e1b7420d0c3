"""Returns of prefixes: when prefixes came back, as counts by delay, and the odds that follow from them.

Every arrival of a prefix opens a *trial*: would an entry written now be read before it expires? The next arrival of the
same prefix settles it, whether anything was written or not, so reuse is learned without paying for it. A trial that is
still open says only that the prefix has not come back *yet*: it counts against the delays that have passed, and not
against longer ones. So the odds are those of a survival table (Kaplan and Meier): for each span of delay, how many of
the prefixes that had not come back before it came back in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_cost_middleware.prompt_cache.plan import ReuseProbability

EDGES_S = (60.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0)
"""Ends of the spans of delay. Lifetimes of entries are among them; finer ones show sooner that nothing comes back."""
_SPANS = len(EDGES_S)
_MAX_TRIALS = 200.0
"""Trials at which all counts are halved, so that old ones fade."""
_MOST_OPEN = 64
"""Open trials of a group that are followed."""
_ADVANCED_EVERY_S = 5.0

Odds = tuple[float, ...]
"""Probability of coming back in each span, for a prefix that has not come back before it."""
NO_ODDS: Odds = (0.0,) * _SPANS
_ONE_CAME: Mapping[int | None, Odds] = {
    None: NO_ODDS, **{span: tuple(float(each == span) for each in range(_SPANS)) for span in range(_SPANS)},
}  # fmt: skip
"""One that came back in a span, ``None``: after the last one."""
_ONE_TRIED: Mapping[int | None, Odds] = {
    None: (1.0,) * _SPANS, **{span: tuple(float(each <= span) for each in range(_SPANS)) for span in range(_SPANS)},
}  # fmt: skip
"""The same, and the spans that had passed before."""


def odds_of(reuse: ReuseProbability) -> Odds:
    """Return odds with the given probabilities of coming back within five minutes, thirty minutes and an hour."""
    short, middle, long = (1.0 - each for each in reuse)
    each_short = 1.0 - short**0.5
    each_middle = 1.0 - (middle / short) ** (1 / 3) if short else 0.0
    each_long = 1.0 - long / middle if middle else 0.0
    return (each_short,) * 2 + (each_middle,) * 3 + (each_long,)


def within(odds: Odds) -> ReuseProbability:
    """Return the probabilities of coming back within five minutes, thirty minutes and an hour."""
    first, second, third, fourth, fifth, sixth = odds
    short = (1.0 - first) * (1.0 - second)
    middle = short * (1.0 - third) * (1.0 - fourth) * (1.0 - fifth)
    return 1.0 - short, 1.0 - middle, 1.0 - middle * (1.0 - sixth)


def span_of(delay: float) -> int | None:
    """Return the span that a delay falls into; ``None`` beyond the last."""
    for span, edge in enumerate(EDGES_S):
        if delay <= edge:
            return span
    return None


class Returns:
    """Counts of one prefix, or of one group of them."""

    __slots__ = ("came", "passed")

    def __init__(self, came: Sequence[float] = NO_ODDS, passed: Sequence[float] = NO_ODDS) -> None:
        self.came = [*came]
        """How many came back in each span."""
        self.passed = [*passed]
        """How many had not come back at its end."""

    def came_back(self, span: int) -> None:
        """Count one that came back in a span."""
        self.came[span] += 1.0
        if self.came[span] + self.passed[span] > _MAX_TRIALS:
            self._fade()

    def has_passed(self, span: int) -> None:
        """Count one that has not come back by the end of a span."""
        self.passed[span] += 1.0
        if self.came[span] + self.passed[span] > _MAX_TRIALS:
            self._fade()

    def blend(self, prior: Odds, weight: float) -> Odds:
        """Return the odds, with a prior that counts as ``weight`` trials."""
        # Written out: it runs some twenty times for each plan, and a loop takes twice as long.
        came1, came2, came3, came4, came5, came6 = self.came
        passed1, passed2, passed3, passed4, passed5, passed6 = self.passed
        odds1, odds2, odds3, odds4, odds5, odds6 = prior
        return (
            (came1 + weight * odds1) / (came1 + passed1 + weight),
            (came2 + weight * odds2) / (came2 + passed2 + weight),
            (came3 + weight * odds3) / (came3 + passed3 + weight),
            (came4 + weight * odds4) / (came4 + passed4 + weight),
            (came5 + weight * odds5) / (came5 + passed5 + weight),
            (came6 + weight * odds6) / (came6 + passed6 + weight),
        )

    def blend_after(self, delay: float, prior: Odds, weight: float) -> Odds:
        """Return the odds, as ``blend`` does, with one more that came back after so many seconds."""
        came1, came2, came3, came4, came5, came6 = self.came
        passed1, passed2, passed3, passed4, passed5, passed6 = self.passed
        odds1, odds2, odds3, odds4, odds5, odds6 = prior
        span = span_of(delay)
        one1, one2, one3, one4, one5, one6 = _ONE_CAME[span]
        all1, all2, all3, all4, all5, all6 = _ONE_TRIED[span]
        return (
            (came1 + one1 + weight * odds1) / (came1 + passed1 + all1 + weight),
            (came2 + one2 + weight * odds2) / (came2 + passed2 + all2 + weight),
            (came3 + one3 + weight * odds3) / (came3 + passed3 + all3 + weight),
            (came4 + one4 + weight * odds4) / (came4 + passed4 + all4 + weight),
            (came5 + one5 + weight * odds5) / (came5 + passed5 + all5 + weight),
            (came6 + one6 + weight * odds6) / (came6 + passed6 + all6 + weight),
        )

    def settle_gap(self, delay: float) -> None:
        """Count one that came back after so many seconds, and so had not come back before."""
        span = span_of(delay)
        if span is None or span:
            for missed in range(_SPANS if span is None else span):
                self.has_passed(missed)
        if span is not None:
            self.came_back(span)

    def _fade(self) -> None:
        self.came = [each / 2 for each in self.came]
        self.passed = [each / 2 for each in self.passed]


class Group(Returns):
    """Counts of a group of prefixes, with a sample of the trials of it that are open.

    A trial is followed from its beginning to its end or not at all, so that what is counted is no selection. What was
    begun and settled since the last ``share`` is kept, so that several processes can count in one group.
    """

    __slots__ = ("advanced_at", "begun", "open", "settled")

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[float, int] = {}
        """When each open trial began, and how many spans it has passed."""
        self.advanced_at = 0.0
        self.begun: list[float] = []
        self.settled: list[tuple[float, int | None]] = []

    def begin(self, at: float) -> None:
        """Open a trial, if there is room."""
        if len(self.open) < _MOST_OPEN:
            self.open[at] = 0
            self.begun.append(at)

    def settle(self, at: float, span: int | None) -> None:
        """Count the return of what began at a time; ``None``: it came after the last span."""
        passed = self.open.pop(at, None)
        if passed is not None:
            self.settled.append((at, span))
            for missed in range(passed, _SPANS if span is None else span):
                self.has_passed(missed)
            if span is not None:
                self.came_back(span)

    def withdraw(self) -> None:
        """Drop the oldest open trial uncounted."""
        oldest = next(iter(self.open), None)
        if oldest is not None:
            del self.open[oldest]

    def advance(self, now: float) -> None:
        """Count the spans that have passed without a return."""
        if now - self.advanced_at < _ADVANCED_EVERY_S:
            return
        self.advanced_at = now
        ended = []
        for at, passed in self.open.items():
            due = passed
            while due < _SPANS and at + EDGES_S[due] < now:
                self.has_passed(due)
                due += 1
            if due == _SPANS:
                ended.append(at)
            elif due != passed:
                self.open[at] = due
        for at in ended:
            del self.open[at]

    def rebase(self, came: Sequence[float], passed: Sequence[float], others: Mapping[float, int], now: float) -> None:
        """Take over what all processes have counted, and count what happened here since ``share`` on top."""
        begun, settled = self.begun, self.settled
        self.came, self.passed, self.open = list(came), list(passed), dict(others)
        for at in begun:
            if len(self.open) < _MOST_OPEN:
                self.open.setdefault(at, 0)
        self.settled = []
        for at, span in settled:
            self.settle(at, span)
        self.settled, self.advanced_at = settled, 0.0
        self.advance(now)

    def share(self) -> None:
        """Forget what happened here: all processes know it."""
        self.begun, self.settled = [], []
