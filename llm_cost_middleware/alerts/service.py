"""Looks for what ``[[alerts]]`` names and tells it, in a thread of its own: no call ever waits for it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable

from llm_cost_middleware.alerts.channels import Channel, open_channel
from llm_cost_middleware.alerts.facts import read_facts
from llm_cost_middleware.alerts.record import AlertRecord, Waiting, digest_of
from llm_cost_middleware.alerts.rules import alerts_of, of_event
from llm_cost_middleware.alerts.settings import AlertConfig, shown_target
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.events import (
    AlertRaised,
    BudgetRefused,
    Event,
    ModelUnpriced,
    PolicyDrifted,
    ThresholdCrossed,
)
from llm_cost_middleware.fork import after_fork_in_child
from llm_cost_middleware.pricing.catalogue import Catalogue

_log = logging.getLogger(__name__)
LOOK_S = 30.0
"""Seconds between two looks at the ledger; one process of all takes them."""
AT_ONCE = ("threshold", "refusal")
"""Rules that are looked at as soon as this process has crossed a threshold or met a refusal."""
_SETTLE_S = 0.2  # a burst of events is one look
_PART = 10  # looking takes at most this part of the time: a slow ledger is looked at less often
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 300.0
_CLOSE_S = 5.0  # that closing waits for what is being told
_KEPT = 10_000


class AlertService:
    """Watches one ledger for some rules. It is an observer: events of this process make it look at once.

    Args:
        rules: ``[[alerts]]``.
        ledger: Where the spending of all processes stands.
        catalogue: The prices in force.
        clock: Time.
        emit: Tells the observers of an alert that is raised.

    Raises:
        MissingExtraError, ConfigurationError: A target cannot be used.
    """

    only_warnings = True  # the events it looks at are told to everybody anyway

    def __init__(
        self,
        rules: Iterable[AlertConfig],
        ledger: Ledger,
        catalogue: Catalogue,
        clock: Clock,
        emit: Callable[[AlertRaised], None] = lambda _: None,
    ) -> None:
        self._ledger, self._catalogue, self._clock, self._emit = ledger, catalogue, clock, emit
        self._record = AlertRecord(ledger, clock.now)
        self._refused: deque[tuple[str, float]] = deque(maxlen=_KEPT)
        self._seen: deque[PolicyDrifted | ModelUnpriced] = deque(maxlen=_KEPT)
        self._waits: dict[str, tuple[float, float]] = {}  # by target: when to try again, and the wait after that
        self._unreached: set[str] = set()
        self._next_look = 0.0
        self.settle_s = _SETTLE_S
        """Seconds that a burst of events is waited for."""
        self._broken = False
        self._thread: threading.Thread | None = None
        self.take_up(rules)
        self._renew()

    def take_up(self, rules: Iterable[AlertConfig]) -> None:
        """Watch for these rules from now on. Raises as the class does, and changes nothing then."""
        rules = tuple(rules)
        channels = {digest_of(target): (target, open_channel(target)) for rule in rules for target in rule.to}
        self.rules: tuple[AlertConfig, ...] = rules
        self._channels: dict[str, tuple[str, Channel]] = channels

    # --- the thread ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, here and in processes that are forked later."""
        _running.add(self)
        self._renew()
        self._thread = threading.Thread(
            target=_watch, args=(weakref.ref(self), self._wake), name="llm-cost-alerts", daemon=True
        )
        self._thread.start()

    def _renew(self) -> None:
        self._wake, self._closed, self._turn = threading.Event(), threading.Event(), threading.Lock()
        self._thread = None

    def restart_in_child(self) -> None:
        """The thread does not survive a fork, nor does what it held."""
        self._record = AlertRecord(self._ledger, self._clock.now)
        self.start()

    def close(self) -> None:
        """Tell what can be told now, and stop. What cannot be stays in the ledger for another process."""
        _running.discard(self)
        self._closed.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)

    def on_event(self, event: Event) -> None:
        """Look at once, in the thread, where an event may be worth an alert."""
        if isinstance(event, BudgetRefused):
            self._refused.append((event.scope, event.at))
        elif isinstance(event, PolicyDrifted | ModelUnpriced):
            self._seen.append(event)
        elif not isinstance(event, ThresholdCrossed):
            return
        self._wake.set()

    def step(self, *, woken: bool) -> None:
        """Look, and tell what waits. Never raises: a ledger that is away is asked again later."""
        began = self._clock.monotonic()
        with self._turn:
            try:
                self.look(at_once=woken)
                self.deliver()
                self._broken = False
            except Exception as error:  # noqa: BLE001 - of the storage, whatever it is
                level = logging.DEBUG if self._broken else logging.WARNING
                told = "alerts could not be looked for, and are later: %s"
                _log.log(level, told, type(error).__name__, exc_info=self._broken)
                self._broken = True
        self.settle_s = min(max(_SETTLE_S, (self._clock.monotonic() - began) * _PART), LOOK_S)

    def settle(self) -> None:
        """Wait for the rest of a burst of events; closing ends it."""
        self._closed.wait(self.settle_s)

    # --- what it does ----------------------------------------------------------------------------------------------

    def look(self, *, at_once: bool = False, everything: bool = False) -> list[AlertRaised]:
        """Raise what the ledger shows now.

        Args:
            at_once: Look at the rules of ``AT_ONCE`` whoever's turn it is.
            everything: Look at all rules whoever's turn it is.

        Returns:
            The alerts that are new.
        """
        began = self._clock.monotonic()
        due = everything or (began >= self._next_look and self._record.take_turn("look", LOOK_S * 0.9))
        rules = [rule for rule in self.rules if due or (at_once and rule.when in AT_ONCE)]
        if not rules and not self._seen:
            return []
        self._record.catch_up()
        found: list[tuple[AlertConfig, AlertRaised]] = []
        while self._seen:
            found += of_event(self.rules, self._seen.popleft(), self._record.ledger_id)
        facts = read_facts(self._ledger, rules, self._catalogue, self._clock.now(), tuple(self._refused))
        for rule in rules:
            found += [(rule, alert) for alert in alerts_of(rule, facts, self._record.ledger_id)]
        new = []
        for rule, alert in found:
            if self._record.raise_(alert, [digest_of(target) for target in rule.to]):
                new.append(alert)
                self._emit(alert)
        if due:
            took = self._clock.monotonic() - began
            self._next_look = began + max(LOOK_S, took * _PART)
        return new

    def deliver(self) -> int:
        """Tell what waits and is due; return how many were told."""
        now, told = self._clock.monotonic(), 0
        self._record.catch_up()
        for waiting in self._record.waiting():
            known = self._channels.get(waiting.target)
            if known is None or self._waits.get(waiting.target, (0.0, 0.0))[0] > now:
                continue  # another configuration's, or not to be reached just now
            if self._record.claim(waiting):
                told += self._tell(waiting, *known)
        return told

    def _tell(self, waiting: Waiting, target: str, channel: Channel) -> bool:
        problem = channel.tell(waiting.alert)
        if not problem:
            self._record.told(waiting)
            self._waits.pop(waiting.target, None)
            self._unreached.discard(waiting.target)
            return True
        self._record.give_back(waiting)
        _, wait = self._waits.get(waiting.target, (0.0, _FIRST_WAIT_S))
        self._waits[waiting.target] = self._clock.monotonic() + wait, min(wait * 2, _LONGEST_WAIT_S)
        level = logging.DEBUG if waiting.target in self._unreached else logging.WARNING
        self._unreached.add(waiting.target)
        _log.log(level, "alerts do not reach %s (%s) and are tried again", shown_target(target), problem)
        return False

    def knows(self, target: str) -> bool:
        """Whether a target of the record is one of this configuration."""
        return target in self._channels

    @property
    def record(self) -> AlertRecord:
        """What was raised and told."""
        return self._record

    @property
    def pause_s(self) -> float:
        """Seconds until there is something to do without an event."""
        now = self._clock.monotonic()
        tries = [at for at, _ in self._waits.values()]
        return max(0.05, min([LOOK_S, self._next_look - now, *(at - now for at in tries)]))

    @property
    def closing(self) -> bool:
        """Whether it was asked to stop."""
        return self._closed.is_set()


def _watch(of: weakref.ref[AlertService], wake: threading.Event) -> None:
    """The thread: it keeps no service alive that nobody else does."""
    pause = _SETTLE_S
    while True:
        woken = wake.wait(pause)
        service = of()
        if service is None:
            return
        if woken and not service.closing:
            service.settle()
        wake.clear()
        service.step(woken=woken)
        if service.closing and not wake.is_set():  # set: something happened since it looked
            return
        pause = service.pause_s
        del service


_running: weakref.WeakSet[AlertService] = weakref.WeakSet()


@after_fork_in_child
def _restart() -> None:
    for service in list(_running):
        service.restart_in_child()
