"""Labels to learn from: quality and cost of a weak and a strong model on the same prompt.

They come from a file in which both models answered the same prompts, or from the application's own log, in which only
one did: there exploration makes up for the missing answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.money import USD, ceil_nanousd
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.complexity import read_text
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import LoggedCall, QualitySource
from llm_cost_middleware.routing.learned import ANY_SITE
from llm_cost_middleware.routing.learning.survey import rereadable
from llm_cost_middleware.routing.signals import ESCALATED

# Calls whose alternative tier had a lower propensity are skipped: divided by it, their estimate is mostly noise.
MIN_PROPENSITY = 0.005
MOST_LABELS = 100_000
"""Labels of a log that are learned from: they are held in memory, and more would make hardly any interval narrower."""
_MOST_HALVINGS = 31

_PRIOR = 10.0  # calls that the overall mean counts for at each site, as in ``fitting.SITE_PRIOR``


class PairedOutcome(NamedTuple):
    """Outcome of a weak and a strong model on one prompt."""

    ngrams: Mapping[int, int]
    text_stats: tuple[float, ...]
    """Empty where unknown."""
    site: str
    weak: float
    """Quality in [0, 1]; an unbiased estimate, possibly outside, where the model did not answer."""
    strong: float
    weak_nanousd: int
    """Cost of the call there."""
    strong_nanousd: int
    text_length: int = 0
    item_count: int = 1
    groups: tuple[str, ...] = ()
    """The wider groups of the site, the narrower ones first."""


def label_text(
    text: str, weak: float, strong: float, weak_nanousd: int, strong_nanousd: int, site: str = ANY_SITE
) -> PairedOutcome:
    """Make a label from a prompt's text, which is not kept."""
    return PairedOutcome(*read_text(text), site, weak, strong, weak_nanousd, strong_nanousd, len(text))


def read_labels(
    path: Path,
    weak: ModelRef,
    strong: ModelRef,
    *,
    site_column: str = "site",
    costs: tuple[USD, USD] | None = None,
) -> list[PairedOutcome]:
    """Read outcomes of two models on the same prompts from a JSONL or parquet file.

    Args:
        path: One row per prompt: ``prompt``, ``score__<model>`` in [0, 1] and, unless ``costs`` is given,
            ``cost__<model>`` in US dollars. Rows where either model has no score are left out.
        weak: The cheaper model, or arm; a column may be named by the model alone or by ``provider/model``, an arm's
            with its parameters behind.
        strong: The stronger one.
        site_column: The column that names the call site, where there is one.
        costs: US dollars per call of the weak and the strong model, where the file has none.

    Raises:
        ConfigurationError: A column is missing, a score is no quality, or no row is left.
        MissingExtraError: The file is parquet and the ``learn`` extra is not installed.
    """
    found: list[PairedOutcome] = []
    columns = ["prompt", site_column]
    columns += [
        f"{kind}__{name}" for kind in ("score", "cost") for target in (weak, strong) for name in _column_names(target)
    ]
    for number, row in enumerate(_rows(path, columns), 1):
        where = f"{path.name} row {number}"
        weak_score, strong_score = _number(row, "score__", weak), _number(row, "score__", strong)
        if weak_score is None or strong_score is None:
            continue
        if not (0 <= weak_score <= 1 and 0 <= strong_score <= 1):
            raise ConfigurationError(f"has a quality outside 0 to 1: {weak_score}, {strong_score}", key=where)
        paid = costs or (_number(row, "cost__", weak), _number(row, "cost__", strong))
        if paid[0] is None or paid[1] is None:
            raise ConfigurationError("has no cost of both models, and none was given", key=where)
        text, site = row.get("prompt"), row.get(site_column)
        if not isinstance(text, str):
            raise ConfigurationError("has no prompt", key=where)
        prices = (ceil_nanousd(paid[0], what=where), ceil_nanousd(paid[1], what=where))
        found.append(label_text(text, weak_score, strong_score, *prices, str(site) if site else ANY_SITE))
    if not found:
        raise ConfigurationError(f"has no row with a score of both {weak} and {strong}", key=path.name)
    return found


class _UsableCall(NamedTuple):
    logged: LoggedCall
    was_strong: bool
    """The stronger model was asked first."""
    quality: float
    """Of the model that was asked first."""
    escalated: bool


class LogLabels(NamedTuple):
    """Labels of a log."""

    labels: list[PairedOutcome]
    left_out: dict[str, int]
    """Number of calls that could not be used, by reason."""
    source: QualitySource
    """Source of their quality."""
    call_ids: list[str]
    """The call of each label."""


def labels_from_log(
    logged: Iterable[LoggedCall], weak: ModelRef, strong: ModelRef, source: QualitySource | None = None
) -> LogLabels:
    """Make labels from decisions and outcomes, where each call was answered by one model only.

    The answer that is missing is estimated without bias from the propensities that exploration logged (doubly robust:
    the site's mean for that model, corrected by what was seen, weighted by how likely it was to be seen).

    Of a call that was escalated the rejection speaks of the model that was asked first, and the application's report of
    the one that answered last: its answer was seen because the first one failed, so it is no unbiased sample of the
    strong model's and corrects nothing.

    Of a call that both models answered (``shadow``) neither is estimated: see ``_both``.

    Each call has costs of its own: what was expected of either model, times the ratio of paid to expected costs of that
    model at the site. The bill of an escalated call is that of two models, and enters no ratio.

    Args:
        logged: Decisions joined with their outcomes.
        weak: The cheaper model.
        strong: The stronger one.
        source: Source of quality; ``None``: feedback where there is enough of it.
    """
    entries = rereadable(logged)
    source = QualitySource.of(entries) if source is None else source
    left_out: Counter[str] = Counter()
    costs, means = _Costs((weak, strong)), _QualityMeans()
    for call in _usable(entries, weak, strong, source, left_out):
        costs.add(call)
        means.add(call)
    sample = _Sample()
    for call in _usable(entries, weak, strong, source, Counter()):
        entry, was_strong, quality, _ = call
        if not sample.takes(entry.decision.call_id):
            continue
        decision, features = entry.decision, entry.decision.features
        weak_score, strong_score = means.of(decision, arm=False), means.of(decision, arm=True)
        if was_strong:
            strong_score += (quality - strong_score) / decision.propensity
        else:
            weak_score += (quality - weak_score) / decision.propensity
        if (both := _both(call, (weak, strong), means.of(decision, arm=True), source)) is not None:
            weak_score, strong_score = both
        sample.add(
            decision.call_id,
            PairedOutcome(
                ngrams=Counter(decision.ngrams),
                text_stats=decision.text_stats,
                site=decision.site,
                weak=weak_score,
                strong=strong_score,
                weak_nanousd=costs.of(call, arm=False),
                strong_nanousd=costs.of(call, arm=True),
                text_length=features.text_length,
                item_count=features.item_count,
                groups=decision.groups,
            ),
        )
    if sample.passed_over:
        left_out[f"more than {MOST_LABELS:,} labels"] = sample.passed_over
    return LogLabels(list(sample.labels.values()), dict(left_out), source, list(sample.labels))


def _usable(
    entries: Iterable[LoggedCall], weak: ModelRef, strong: ModelRef, source: QualitySource, left_out: Counter[str]
) -> Iterator[_UsableCall]:
    """The calls that become labels; the others are counted by reason."""
    for entry in entries:
        quality = source.read(entry)
        reason = _unusable(entry, weak, strong, quality, paired=source is QualitySource.SHADOW)
        if reason:
            left_out[reason] += 1
            continue
        rejected = any(outcome.name == ESCALATED for outcome in entry.outcomes)
        yield _UsableCall(entry, entry.decision.target == strong, 0.0 if rejected else quality or 0.0, rejected)


class _Sample:
    """Labels by call: all of them, or of a log that has too many a share that is drawn by the ids of its calls.

    The share does not depend on the order, so that a replay knows which calls a policy was tuned on.
    """

    def __init__(self) -> None:
        self.labels: dict[str, PairedOutcome] = {}
        self.passed_over = 0
        self._halvings = 0

    def takes(self, call_id: str) -> bool:
        """Whether a call is in the share."""
        taken = self._in_share(call_id)
        self.passed_over += not taken
        return taken

    def add(self, call_id: str, label: PairedOutcome) -> None:
        """Keep a label."""
        self.labels[call_id] = label
        while len(self.labels) > MOST_LABELS and self._halvings < _MOST_HALVINGS:
            self._halvings += 1
            before = len(self.labels)
            self.labels = {id_: known for id_, known in self.labels.items() if self._in_share(id_)}
            self.passed_over += before - len(self.labels)

    def _in_share(self, call_id: str) -> bool:
        return crc32(call_id.encode()) & ((1 << self._halvings) - 1) == 0


def _both(
    call: _UsableCall, pair: tuple[ModelRef, ModelRef], usual: float, source: QualitySource
) -> tuple[float, float] | None:
    """The qualities of both models on a call that both answered; ``None`` where they did not, or nothing rates them.

    What says the same is as good. Where they differ, the stronger one is taken to be right: what the application
    reported of it counts, else its usual quality at the site.
    """
    shadow = call.logged.shadow
    if shadow is None or call.escalated or source is QualitySource.FAILURES:
        return None
    same = shadow[1]
    if shadow[0].target != pair[not call.was_strong]:
        return None
    if source is QualitySource.SHADOW:
        return same, 1.0
    if call.was_strong:
        return same * call.quality, call.quality
    return call.quality, call.quality if same else usual


def _unusable(entry: LoggedCall, weak: ModelRef, strong: ModelRef, quality: float | None, *, paired: bool) -> str:
    decision = entry.decision
    if decision.target not in (weak, strong):
        return "another model"
    if quality is None:
        return "no outcome"
    if not decision.ngrams:
        return "no n-grams (learning was off)"
    if entry.shadow is not None and entry.shadow[0].target in (weak, strong):
        return ""  # both were asked: no chance is needed
    if paired:
        return "one answer"
    if not MIN_PROPENSITY <= decision.propensity <= 1 - MIN_PROPENSITY:
        return "no exploration: set routing.explore or routing.shadow"
    return ""


class _Costs:
    """Costs of either model on each call of a log."""

    def __init__(self, pair: tuple[ModelRef, ModelRef]) -> None:
        self._pair = pair
        self._paid: dict[tuple[str, bool], list[int]] = {}
        self._calls: dict[bool, list[int]] = {False: [0, 0], True: [0, 0]}

    def add(self, call: _UsableCall) -> None:
        """Learn from what a call cost."""
        if call.escalated or call.logged.settlement is None:
            return
        cost, expected = int(call.logged.settlement.cost_nanousd), self._expected(call, arm=call.was_strong)
        self._calls[call.was_strong][0] += cost
        self._calls[call.was_strong][1] += 1
        for key in ((call.logged.decision.site, call.was_strong), ("", call.was_strong)):
            sums = self._paid.setdefault(key, [0, 0, 0])
            for place, value in enumerate((cost, expected, 1) if expected else (0, 0, 0)):
                sums[place] += value

    def of(self, call: _UsableCall, *, arm: bool) -> int:
        """Nano-dollars that the call costs at the strong model (``arm``) or at the weak one."""
        expected = self._expected(call, arm=arm)
        if not expected:  # an old line, or a model that was no candidate
            paid, calls = self._calls[arm]
            return paid // calls if calls else 0
        overall = self._ratio(self._paid.get(("", arm)), 1.0)
        return round(expected * self._ratio(self._paid.get((call.logged.decision.site, arm)), overall))

    def _expected(self, call: _UsableCall, *, arm: bool) -> int:
        target = self._pair[arm]
        found = (c.expected_nanousd for c in call.logged.decision.candidates if c.target == target)
        return int(next(found, None) or 0)

    @staticmethod
    def _ratio(sums: Sequence[int] | None, prior: float) -> float:
        """Paid by expected, drawn towards a prior where calls are few."""
        if sums is None or not sums[2]:
            return prior
        paid, expected, n = sums
        usual = expected / n
        return (paid + prior * usual * _PRIOR) / (expected + usual * _PRIOR)


class _QualityMeans:
    """Mean quality of either model at each site, drawn towards that of its group where calls are few.

    A group is drawn towards the next wider one, the widest towards the mean of all.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, bool], list[float]] = {}

    def add(self, call: _UsableCall) -> None:
        """Learn from how good a call was."""
        for key in ("", *_nested(call.logged.decision)):
            sums = self._sums.setdefault((key, call.was_strong), [0.0, 0])
            sums[0] += call.quality
            sums[1] += 1

    def of(self, decision: RoutingDecision, *, arm: bool) -> float:
        """The mean at the site of a call, for the strong model (``arm``) or for the weak one."""
        total, n = self._sums.get(("", arm), (0.0, 0))
        mean = total / n if n else 0.5
        for key in _nested(decision):
            total, n = self._sums.get((key, arm), (0.0, 0))
            mean = (total + _PRIOR * mean) / (n + _PRIOR)
        return mean


def _nested(decision: RoutingDecision) -> tuple[str, ...]:
    """The groups of a call's site and the site, from wide to narrow."""
    return (*reversed(decision.groups), decision.site)


def _rows(path: Path, columns: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        with needed_for("reading parquet"):
            import pyarrow.parquet as pq
            from pyarrow.lib import ArrowException
        try:
            table = pq.ParquetFile(path)
        except ArrowException as error:
            raise ConfigurationError(f"cannot be read: {error}", key=path.name) from None
        wanted = set(columns) & set(table.schema_arrow.names)
        for batch in table.iter_batches(columns=sorted(wanted)):
            yield from batch.to_pylist()
        return
    with path.open(encoding="utf-8", errors="replace") as lines:  # a line that is no text is then reported as no JSON
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ConfigurationError(f"is not JSON: {error}", key=f"{path.name} line {number}") from None
                if not isinstance(row, dict):
                    raise ConfigurationError("is not a table", key=f"{path.name} line {number}")
                yield row


def _column_names(target: ModelRef) -> tuple[str, str]:
    return str(target).removeprefix(f"{target.provider}/"), str(target)


def _number(row: Mapping[str, Any], prefix: str, target: ModelRef) -> float | None:
    for name in _column_names(target):
        value = row.get(f"{prefix}{name}")
        if isinstance(value, int | float) and not isnan(value):  # a NaN stands for "not measured"
            return float(value)
    return None
