"""Log of routing decisions, quality signals and settlements: appended as they happen, joined by call when read."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate, RoutingDecision, read_ref
from llm_cost_middleware.routing.signals import SIGNAL_SCORES

FEEDBACK = "feedback"
"""Name of an outcome that the application itself gave: it overrides every automatic one."""


SHADOW = "shadow:"
"""Beginning of the name of an outcome that is none of the call's own.

Its score is 1 where the model named after it said the same, else 0."""


# The ledger's journal fits these protocols. They are stated here because routing does not import the ledger.
class StoredLine(Protocol):
    """One line of a log store."""

    @property
    def id(self) -> str:
        """Id of the call."""
        ...

    @property
    def at(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    @property
    def data(self) -> bytes:
        """The appended bytes."""
        ...


class LogStore(Protocol):
    """Storage of lines beyond this process: an optional ability of a ledger's backend."""

    def append(self, kind: str, id_: str, at: float, data: bytes) -> None:
        """Add a line."""
        ...

    def read(self, kind: str, since: float | None = None) -> Iterable[StoredLine]:
        """Return the lines of a kind in the order they were added."""
        ...


@runtime_checkable
class ReadsBackwards(Protocol):
    """Ability of a log store to read the newest lines first."""

    def newest(self, kind: str) -> Iterator[StoredLine]:
        """Stream the lines of a kind, the last one first."""
        ...


class Outcome(NamedTuple):
    """One quality signal of a call: a score in [0, 1] under the name of its source."""

    call_id: str
    name: str
    score: float
    at: float


class Settlement(Struct, frozen=True, gc=False):
    """Final cost and answering model of a call, over all its attempts."""

    call_id: str
    target: ModelRef
    cost_nanousd: NanoUSD
    output_tokens: int | None
    at: float


class LoggedCall(Struct, frozen=True):
    """A decision, joined with the outcomes and the settlement of its call."""

    decision: RoutingDecision
    outcomes: tuple[Outcome, ...] = ()
    settlement: Settlement | None = None

    @property
    def quality(self) -> float | None:
        """The newest feedback, else the worst automatic outcome; ``None`` without either: no failure is no praise."""
        given = [outcome.score for outcome in self.outcomes if outcome.name == FEEDBACK]
        if given:
            return given[-1]
        own = (outcome.score for outcome in self.outcomes if not outcome.name.startswith(SHADOW))
        return min(own, default=None)

    @property
    def shadow(self) -> tuple[EvaluatedCandidate, float] | None:
        """The model that answered beside the call's own, and whether it said the same (1) or not (0)."""
        for outcome in reversed(self.outcomes):
            if outcome.name.startswith(SHADOW):
                name = outcome.name.removeprefix(SHADOW)
                found = next((c for c in self.decision.candidates if str(c.target) == name), None)
                return None if found is None else (found, outcome.score)
        return None

    @property
    def agreed(self) -> float | None:
        """Quality as the stronger model's answer has it: of that model 1; ``None`` without a second answer."""
        if self.shadow is None:
            return None
        other, same = self.shadow
        return 1.0 if self.decision.tier > other.tier else same

    @property
    def feedback(self) -> float | None:
        """As ``quality``, of the application's own outcomes only."""
        own = replace(self, outcomes=tuple(outcome for outcome in self.outcomes if outcome.name not in SIGNAL_SCORES))
        return own.quality

    @property
    def assumed_quality(self) -> float | None:
        """As ``quality``, but 1 for a finished call without an outcome; ``None`` where it may not have finished."""
        quality = self.quality
        if quality is None and self.settlement is not None and self.settlement.output_tokens is not None:
            return 1.0
        return quality

    def to_json(self) -> str:
        """Return decision, outcomes and settlement as one line, to export a log."""
        settled = self.settlement
        return json.dumps(
            {
                "decision": json.loads(self.decision.to_json()),
                "outcomes": [[outcome.name, outcome.score, outcome.at] for outcome in self.outcomes],
                "settlement": [
                    list(settled.target),
                    settled.cost_nanousd,
                    settled.output_tokens,
                    settled.at,
                    *([dict(settled.target.parameters)] if settled.target.parameters else ()),
                ]
                if settled
                else None,
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, line: str) -> LoggedCall:
        """Read an exported line, or the bare line of a decision. Raises ``ConfigurationError``."""
        try:
            data = json.loads(line)
            if "decision" not in data:
                return cls(RoutingDecision.from_json(line))
            decision = RoutingDecision.from_json(json.dumps(data["decision"]))
            outcomes = tuple(
                Outcome(decision.call_id, name, float(score), at) for name, score, at in data.get("outcomes", ())
            )
            settlement = None
            if data.get("settlement"):
                target, cost, tokens, at, *arm = data["settlement"]
                answered = read_ref(target, *arm[:1])
                settlement = Settlement(decision.call_id, answered, NanoUSD(cost), tokens, at)
        except ConfigurationError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"not a logged decision: {error!r}") from None
        return cls(decision, outcomes, settlement)


class QualitySource(StrEnum):
    """Source of a log's quality. A mixture of the two would count every failure and only some of the rest."""

    FEEDBACK = "feedback"
    """Outcomes given by the application; the quality of other calls is unknown."""
    SHADOW = "shadow"
    """Whether the stronger model said the same, where both were asked; the quality of other calls is unknown."""
    FAILURES = "failures"
    """Every finished call is good unless the application reports otherwise or a failure was observed."""

    @classmethod
    def of(cls, entries: Iterable[LoggedCall]) -> QualitySource:
        """Return feedback where there is enough of it, else second answers, else failures."""
        rated = paired = 0
        for entry in entries:
            rated += entry.feedback is not None
            paired += entry.agreed is not None
        return cls.of_counts(rated, paired)

    @classmethod
    def of_counts(cls, rated: int, paired: int) -> QualitySource:
        """As ``of``, of a log in which so many calls have feedback, and so many two answers."""
        if rated >= MIN_FEEDBACK_CALLS:
            return cls.FEEDBACK
        return cls.SHADOW if paired >= MIN_FEEDBACK_CALLS else cls.FAILURES

    def read(self, entry: LoggedCall) -> float | None:
        """Return the quality of a call; ``None`` where unknown."""
        if self is QualitySource.SHADOW:
            return entry.agreed
        return entry.feedback if self is QualitySource.FEEDBACK else entry.assumed_quality


# Calls with feedback from which feedback alone measures quality; as for labels, the error bars of fewer are too wide.
MIN_FEEDBACK_CALLS = 100
KEPT = 10_000  # calls in memory
# Lines are in the order they were written, by machines whose clocks may differ by so much.
_CLOCKS_APART_S = 3600.0


class DecisionLog:
    """Log of decisions, outcomes and settlements. Its owner holds the lock.

    Args:
        journal: Store of the lines; ``None``: this process's memory, bounded.
        keep: Number of calls kept without a journal; the oldest are dropped.
    """

    def __init__(self, journal: LogStore | None = None, keep: int = KEPT) -> None:
        self._journal, self._keep = journal, keep
        self._calls: OrderedDict[str, LoggedCall] = OrderedDict()
        self._appended: OrderedDict[str, None] = OrderedDict()

    def append(self, decision: RoutingDecision, settlement: Settlement | None = None) -> None:
        """Log a decision, with the settlement of its call where there is one already.

        A later decision of the same call (a fallback was routed anew) takes its place.
        """
        if self._journal is not None:
            self._appended[decision.call_id] = None
            if len(self._appended) > self._keep:
                self._appended.popitem(last=False)
            self._journal.append("decision", decision.call_id, decision.at, decision.to_json().encode())
            if settlement is not None:
                self.settled(settlement)
            return
        known = self._calls.get(decision.call_id)
        outcomes, before = (known.outcomes, known.settlement) if known else ((), None)
        self._calls[decision.call_id] = LoggedCall(decision, outcomes, settlement or before)
        if len(self._calls) > self._keep:
            self._calls.popitem(last=False)

    def knows(self, call_id: str) -> bool:
        """Whether a call is in the log. For one of another process the whole journal is read."""
        if self._journal is None:
            return call_id in self._calls
        return call_id in self._appended or any(line.id == call_id for line in newest(self._journal, "decision"))

    def outcome(self, call_id: str, name: str, score: float, at: float, *, known_only: bool = False) -> None:
        """Log a quality signal of a call.

        Args:
            call_id: The call; an unknown one is stored in a journal and ignored in memory.
            name: ``feedback``, or one of ``signals.SIGNAL_SCORES``, or a name of the application's own.
            score: Quality, 0 (useless) to 1 (as good as it gets).
            at: Seconds since the Unix epoch.
            known_only: Refuse a call that is not in the log.

        Raises:
            ConfigurationError: The score is not a number in [0, 1], the call or the name no text, or the call unknown.
        """
        # True and False would pass as 1 and 0, and hide that a score was meant for something else
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise ConfigurationError(f"must be a quality between 0 and 1, not {score!r}", key="score")
        for key, value in (("call_id", call_id), ("name", name)):
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"must be a text that is not empty, not {value!r}", key=key)
        if known_only and not self.knows(call_id):
            raise ConfigurationError(f"no call {call_id!r} is in the log", key="call_id")
        entry = Outcome(call_id, name, float(score), at)
        if self._journal is not None:
            self._journal.append("outcome", call_id, at, json.dumps({"name": name, "score": entry.score}).encode())
        elif call_id in self._calls:
            logged = self._calls[call_id]
            self._calls[call_id] = replace(logged, outcomes=(*logged.outcomes, entry))

    def settled(self, end: Settlement) -> None:
        """Log the final cost of a call over all its attempts, and the model that answered."""
        if self._journal is not None:
            target = end.target
            data = {"target": list(target), "cost_nanousd": int(end.cost_nanousd), "output_tokens": end.output_tokens}
            if target.parameters:
                data["arm"] = dict(target.parameters)
            self._journal.append("settlement", end.call_id, end.at, json.dumps(data).encode())
        elif end.call_id in self._calls:
            logged = self._calls[end.call_id]
            self._calls[end.call_id] = LoggedCall(logged.decision, logged.outcomes, end)

    def read(self, since: float | None = None) -> Iterator[LoggedCall]:
        """Yield every decision in the order it was made, joined with the outcomes and settlement of its call.

        Raises:
            ConfigurationError: A line is damaged, or a newer version wrote it.
        """
        if self._journal is None:
            yield from [logged for logged in self._calls.values() if since is None or logged.decision.at >= since]
            return
        # A log may hold millions: decisions are read one by one, and of the rest no more is kept than stands there.
        outcomes: dict[str, list[StoredLine]] = {}
        for line in self._journal.read("outcome", since):
            outcomes.setdefault(line.id, []).append(line)
        settled = {line.id: line for line in self._journal.read("settlement", since)}
        left = Counter(line.id for line in self._journal.read("decision", since))
        for line in self._journal.read("decision", since):
            left[line.id] -= 1
            if left[line.id]:  # the last decision of a call counts: a fallback was routed anew
                continue
            told = settled.pop(line.id, None)
            yield LoggedCall(
                RoutingDecision.from_json(line.data),
                tuple(map(_outcome, outcomes.pop(line.id, ()))),
                None if told is None else _settlement(told),
            )

    def last(
        self, count: int, wanted: Callable[[RoutingDecision], bool], *, since: float | None = None, call: str = ""
    ) -> list[LoggedCall]:
        """Return the newest decisions that are wanted, oldest first, joined with what became of their calls.

        It reads backwards, and no further than it must: a log may hold millions.

        Args:
            count: How many.
            wanted: Whether a decision is one of them.
            since: Seconds since the Unix epoch: none before.
            call: How the id of the call begins.

        Raises:
            ConfigurationError: A line is damaged, or a newer version wrote it.
        """
        if self._journal is None:
            logged = [one for one in self.read(since) if one.decision.call_id.startswith(call) and wanted(one.decision)]
            return logged[-count:]
        found: dict[str, RoutingDecision] = {}
        first = 0.0
        for line in newest(self._journal, "decision"):
            if since is not None and line.at < since - _CLOCKS_APART_S:
                break
            # The newest decision of a call counts: an older one of the same call was routed anew.
            if not line.id.startswith(call) or line.id in found or (since is not None and line.at < since):
                continue
            decision = RoutingDecision.from_json(line.data)
            if wanted(decision):
                found[line.id], first = decision, line.at
                if len(found) == count:
                    break
        if not found:
            return []
        later = {
            kind: [line for line in self._journal.read(kind, first - _CLOCKS_APART_S) if line.id in found]
            for kind in ("outcome", "settlement")
        }
        decisions = reversed(found.values())
        return list(join(decisions, map(_outcome, later["outcome"]), map(_settlement, later["settlement"])))


def newest(store: LogStore, kind: str) -> Iterator[StoredLine]:
    """Stream the lines of a kind, the last one first."""
    return store.newest(kind) if isinstance(store, ReadsBackwards) else iter([*store.read(kind)][::-1])


def join(
    decisions: Iterable[RoutingDecision], outcomes: Iterable[Outcome] = (), settlements: Iterable[Settlement] = ()
) -> Iterator[LoggedCall]:
    """Join decisions with outcomes and settlements by call. The last decision and settlement of a call count."""
    by_call: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_call.setdefault(outcome.call_id, []).append(outcome)
    settled = {settlement.call_id: settlement for settlement in settlements}
    last = {decision.call_id: decision for decision in decisions}
    for call_id, decision in last.items():
        yield LoggedCall(decision, tuple(by_call.get(call_id, ())), settled.get(call_id))


def _outcome(line: StoredLine) -> Outcome:
    try:
        data = json.loads(line.data)
        return Outcome(line.id, data["name"], float(data["score"]), line.at)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"not an outcome: {error!r}", key=f"journal.{line.id}") from None


def _settlement(line: StoredLine) -> Settlement:
    try:
        data = json.loads(line.data)
        target, cost = read_ref(data["target"], data.get("arm")), NanoUSD(data["cost_nanousd"])
        return Settlement(line.id, target, cost, data["output_tokens"], line.at)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"not a settlement: {error!r}", key=f"journal.{line.id}") from None
