"""The register of budgets: where each comes from and since when, what was decided about it, and what is paused.

A storage keeps it as one document and changes it in one atomic step (``SupportsRegister``). The newest decision about a
budget holds. A configuration decides about a budget where its line is not what it was in the configuration before: a
line that says the same as ever undoes nothing that was decided since. A configuration that is older than the newest of
its name decides nothing. It is older if its version is lower; or if it has the same version, was the newest before, and
was not written since: a process that starts with a file of yesterday brings back nothing.

Which configuration one without a name follows on is in ``rules.configurations``. One that follows on none is of another
service, and ends nothing of theirs; of a budget that both have, the newest line holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from llm_cost_middleware.budget.carry_over import stood_on
from llm_cost_middleware.budget.model import MAX_NANOUSD, Budget, parse_scope
from llm_cost_middleware.budget.rules import configurations
from llm_cost_middleware.budget.rules.names import Normalise, rules_about, without_budget, write_budget, write_scope
from llm_cost_middleware.budget.rules.standing import Pause
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD

MANAGED = "managed"
CONFIGURATION = "configuration"
Action = Literal["set", "raised", "removed", "retired", "kept", "beside", "superseded", "paused", "resumed"]
State = Literal["active", "removed", "retired"]

_HISTORY = 500
_MOST_RULES = 100
_EMPTY: dict[str, Any] = {"budgets": {}, "configurations": {}, "pauses": {}, "history": []}


class BudgetLife(NamedTuple):
    """One budget, and what was decided about it last.

    ``source`` is ``managed`` (set in the ledger by hand) or ``configuration:NAME``; ``since`` is when that was decided,
    seconds since the Unix epoch. While ``raised_until`` (seconds) lies ahead, ``raised_to`` is the limit. A budget that
    was ``removed`` by hand or ``retired``, because it no longer stands in its configuration, limits nothing.
    """

    budget: Budget
    source: str
    since: float
    state: State
    raised_to: NanoUSD | None = None
    raised_until: float | None = None


class Decision(NamedTuple):
    """One line of the history. ``at`` is seconds since the Unix epoch; ``source`` as in ``BudgetLife``.

    ``kept`` is told and not written down: a line of the configuration that a newer decision stands over. ``superseded``
    tells of a configuration that is older than the newest of its name, ``beside`` of a budget of another configuration
    that goes on beside one that is new and has no name.
    """

    at: float
    action: Action
    scope: str
    window: str
    source: str
    detail: str = ""


class Amended(NamedTuple):
    """What a step leaves: the document to keep, and the budgets that are in force."""

    document: bytes
    budgets: tuple[Budget, ...]


def setting(budget: Budget) -> Callable[[bytes, tuple[Budget, ...], int], Amended]:
    """Return the step that sets a budget past the register, as ``Backend.set_budget`` does."""

    def step(document: bytes, budgets: tuple[Budget, ...], _: int) -> Amended:
        return Amended(document, (*_without(budgets, budget.key), budget))

    return step


def removing(key: tuple[str, str]) -> Callable[[bytes, tuple[Budget, ...], int], Amended]:
    """Return the step that removes a budget past the register, as ``Backend.remove_budget`` does."""
    return lambda document, budgets, _: Amended(document, _without(budgets, key))


def _without(budgets: Iterable[Budget], key: tuple[str, str]) -> tuple[Budget, ...]:
    return tuple(known for known in budgets if known.key != key)


class BudgetRegister:
    """The register, as it is at ``now`` (ms); changed by the methods below and written by ``amended``.

    Args:
        document: As a storage keeps it; empty at first.
        budgets: Those that the storage has in force. What the document does not know was set by an earlier version of
            this package, or past the register: it counts as managed.
        now: Time, ms since the Unix epoch.
    """

    def __init__(self, document: bytes, budgets: Iterable[Budget], now: int) -> None:
        self.now, self.changed = now, False
        self._found: dict[str, Any] = json.loads(document or json.dumps(_EMPTY))
        self._lives: dict[str, dict[str, Any]] = self._found["budgets"]
        standing = {_name(budget.key): budget for budget in budgets}
        for name, budget in standing.items():
            life = self._active(name)
            if life is None or _budget(name, life) != budget:
                self._lives[name] = self._begun(budget, MANAGED, None)
        for name, life in self._lives.items():
            if life["state"] == "active" and name not in standing:
                life.update(state="removed", source=MANAGED, since=now)

    # --- what stands -----------------------------------------------------------------------------------------------

    def lives(self) -> tuple[BudgetLife, ...]:
        """Return every budget that there is or was, ordered by scope and window."""
        return tuple(self._life(name) for name in sorted(self._lives))

    def pauses(self) -> tuple[Pause, ...]:
        """Return what is paused now."""
        found = (Pause(scope, *facts) for scope, facts in sorted(self._found["pauses"].items()))
        return tuple(pause for pause in found if pause.until is None or pause.until > self.now)

    def history(self) -> tuple[Decision, ...]:
        """Return the last 500 decisions, oldest first."""
        return tuple(Decision(at / 1000, *rest) for at, *rest in self._found["history"])

    def amended(self) -> Amended | None:
        """Return what is to be written; ``None`` where nothing was decided."""
        if not self.changed:
            return None
        self._found["pauses"] = {pause.scope: list(pause[1:]) for pause in self.pauses()}
        self._found["history"] = self._found["history"][-_HISTORY:]
        for life in self._lives.values():
            if life.get("raised") and life["raised"][1] <= self.now:
                del life["raised"]
        document = json.dumps(self._found, ensure_ascii=False, separators=(",", ":")).encode()
        standing = (_budget(name, life) for name, life in self._lives.items() if life["state"] == "active")
        return Amended(document, tuple(standing))

    # --- decisions -------------------------------------------------------------------------------------------------

    def set(self, budget: Budget, source: str = MANAGED) -> None:
        """Set a budget. It ends a raise: that was decided before. The same again changes nothing."""
        name = _name(budget.key)
        life = self._active(name)
        same = life is not None and _budget(name, life) == budget
        if life is not None and same and life["source"] == source and not life.get("raised"):
            return
        self._lives[name] = self._begun(budget, source, life)
        self._decided("set", name, source, str(budget.limit_nanousd))

    def raise_(self, key: tuple[str, str], limit: NanoUSD, until: int | None) -> BudgetLife:
        """Raise the limit of a budget, until a time (ms) or for good.

        Raises:
            ConfigurationError: There is no such budget, the limit is no higher, or the time has passed.
        """
        name = _name(key)
        life = self._active(name)
        if life is None:
            raise ConfigurationError(self._without(*key), key="scope")
        if limit <= life["limit"]:
            told = f"is not above the limit of {NanoUSD(life['limit'])}; to lower it, llm-cost budgets set"
            raise ConfigurationError(f"{limit} {told}", key="limit")
        raised = life.get("raised")
        if raised and raised[1] > self.now and limit < raised[0]:
            already = f"it is raised to {NanoUSD(raised[0])} until {_iso(raised[1])}"
            raise ConfigurationError(f"{limit} would lower it: {already}; set it to end that", key="limit")
        if limit > MAX_NANOUSD:
            raise ConfigurationError(f"must be below {NanoUSD(MAX_NANOUSD + 1)}", key="limit")
        if until is None:
            life.pop("raised", None)
            life.update(limit=int(limit), source=MANAGED, since=self.now)
            if "stood" in life:
                life["stood"] = stood_on(life["stood"], self.now, int(limit))
            self._decided("raised", name, MANAGED, f"{limit}")
        elif until <= self.now:
            raise ConfigurationError("lies in the past", key="until")
        else:
            life["raised"] = [int(limit), until]
            self._decided("raised", name, MANAGED, f"{limit} until {_iso(until)}")
        return self._life(name)

    def remove(self, key: tuple[str, str]) -> bool:
        """End a budget; return whether there was one."""
        name = _name(key)
        if self._active(name) is None:
            return False
        self._end(name, "removed", MANAGED)
        return True

    def configure(
        self,
        name: str | None,
        version: int,
        budgets: Iterable[Budget],
        written_at: int | None = None,
        origin: str | None = None,
    ) -> tuple[Decision, ...]:
        """Take in the budgets of a configuration; return what became of it.

        Args:
            name: Whose: services with budgets of their own have a name each. ``None``: of what it follows on.
            version: A higher one is newer, whenever it comes.
            budgets: All that it has. Those of the configuration before that are not among them are retired.
            written_at: When its file was changed, ms since the Unix epoch; ``None`` where that is not known.
            origin: What tells its file from others, where it has one.
        """
        lines = {_name(budget.key): _facts(budget) for budget in budgets}
        content, unnamed = configurations.fingerprint(version, lines), name is None
        others: tuple[Decision, ...] = ()
        everyone = self._found["configurations"]
        if name is None:
            name = configurations.followed(everyone, lines, content, origin)
            if name is None:
                return ()
            if name not in everyone:
                others = self._beside()
        source = f"{CONFIGURATION}:{name}"
        known = everyone.get(name) or configurations.begun(version)
        if configurations.is_newest(known, content):
            return self._stood_over(lines)
        if older := configurations.why_older(known, version, content, written_at):
            return (Decision(self.now / 1000, "superseded", "", "", source, older),)
        before: dict[str, Any] = known["budgets"]
        started = len(self._found["history"])
        for line, facts in lines.items():
            if before.get(line) != facts:
                self.set(_budget(line, facts), source)
        for line in before.keys() - lines.keys():
            life = self._active(line)
            if life is not None and life["source"] == source:
                self._retire(line, source, name)
        at = self.now if written_at is None else written_at
        everyone[name] = configurations.taken(known, version, content, lines, at, origin=origin, unnamed=unnamed)
        self.changed = True
        told = [Decision(at / 1000, *rest) for at, *rest in self._found["history"][started:]]
        return (*told, *self._stood_over(lines), *others)

    def learn_names(self, who: str, rules: Mapping[str, Normalise]) -> None:
        """Note how a service writes names in scopes: decisions by hand are written so.

        Args:
            who: Tells the service from others.
            rules: How it writes the names of a kind; none: as they are.
        """
        known = self._found.setdefault("names", {})
        if known.get(who, {}) == rules:
            return
        known.pop(who, None)
        if rules:
            known[who] = dict(rules)
        for oldest in list(known)[:-_MOST_RULES]:
            del known[oldest]
        self.changed = True

    def spellings(self, scope: str) -> tuple[str, ...]:
        """Return a scope as the services of this ledger write it: one for each way in which they do."""
        return tuple(dict.fromkeys(write_scope(scope, rules) for rules in rules_about(scope, self._rules)))

    def written(self, budget: Budget) -> tuple[Budget, ...]:
        """Return a budget as the services of this ledger write it: one for each way in which they do."""
        found = (write_budget(budget, rules) for rules in rules_about(budget.scope, self._rules))
        return tuple({one.key: one for one in found}.values())

    @property
    def _rules(self) -> Iterable[Mapping[str, Normalise]]:
        return self._found.get("names", {}).values()  # type: ignore[no-any-return]  # of a document

    def pause(self, scope: str, until: int | None, reason: str) -> None:
        """Stop every call of a scope, or of every scope of a kind (``kind:*``)."""
        scope = parse_scope(scope, template=True)
        if until is not None and until <= self.now:
            raise ConfigurationError("lies in the past", key="until")
        self._found["pauses"][scope] = [self.now, until, reason]
        end = f"until {_iso(until)}" if until is not None else ""
        self._decided("paused", f"{scope} ", MANAGED, "; ".join(filter(None, (end, reason))))

    def resume(self, scope: str) -> bool:
        """Let calls of a scope go on; return whether it was paused."""
        scope = parse_scope(scope, template=True)
        running = any(pause.scope == scope for pause in self.pauses())
        if self._found["pauses"].pop(scope, None) is not None:
            self._decided("resumed", f"{scope} ", MANAGED)
        return running

    # --- parts -----------------------------------------------------------------------------------------------------

    def _active(self, name: str) -> dict[str, Any] | None:
        """The life of a budget that is in force."""
        life = self._lives.get(name)
        return life if life is not None and life["state"] == "active" else None

    def _without(self, scope: str, window: str) -> str:
        """Say that a scope has no budget, and what to do where that of its kind applies to it."""
        template = f"{scope.partition(':')[0]}:*"
        if self._active(_name((template, window))) is None:
            active = [one.budget for one in self.lives() if one.state == "active"]
            return without_budget(scope, window, active, template)
        told = f"{scope} has no budget of its own in the window {window!r}: that of {template} applies to it"
        return f"{told}. Give it one: llm-cost budgets set {scope} DOLLARS --window {window}"

    def _begun(self, budget: Budget, source: str, before: dict[str, Any] | None) -> dict[str, Any]:
        """The life of a budget that is set now; where it carries over, with the limits that stood until now."""
        life = {**_facts(budget), "source": source, "since": self.now, "state": "active"}
        if budget.carry_over:
            on = before is not None and before["timezone"] == budget.timezone
            earlier = before.get("stood", ()) if on and before is not None else ()
            life["stood"] = stood_on(earlier, self.now, int(budget.limit_nanousd))
        return life

    def _beside(self) -> tuple[Decision, ...]:
        """Name the budgets of other configurations that have no name."""
        known = self._found["configurations"].items()
        sources = {f"{CONFIGURATION}:{one}" for one, configuration in known if configuration.get("unnamed")}
        return tuple(
            Decision(life.since, "beside", *life.budget.key, life.source)
            for life in self.lives()
            if life.state == "active" and life.source in sources
        )

    def _retire(self, line: str, source: str, name: str) -> None:
        """End a budget whose line is gone, unless another configuration still has it.

        Then that one's line holds, but no higher limit: much may have been decided since it was written.
        """
        least = self._lives[line]["limit"]
        for other, known in self._found["configurations"].items():
            if other != name and line in known["budgets"]:
                facts = known["budgets"][line]
                facts = facts | {"limit": min(facts["limit"], least)}
                self.set(_budget(line, facts), f"{CONFIGURATION}:{other}")
                return
        self._end(line, "retired", source)

    def _stood_over(self, lines: dict[str, dict[str, Any]]) -> tuple[Decision, ...]:
        """Name the lines of a configuration that a newer decision stands over."""
        told = []
        for line, facts in lines.items():
            life = self._lives.get(line)
            if life is None or (life["state"] == "active" and _budget(line, life) == _budget(line, facts)):
                continue
            scope, _, window = line.partition(" ")
            now = f"{NanoUSD(life['limit'])}" if life["state"] == "active" else life["state"]
            told.append(Decision(life["since"] / 1000, "kept", scope, window, life["source"], now))
        return tuple(told)

    def _end(self, name: str, state: Literal["removed", "retired"], source: str) -> None:
        life = self._lives[name]
        life.pop("raised", None)
        life.update(state=state, source=source, since=self.now)
        self._decided(state, name, source)

    def _life(self, name: str) -> BudgetLife:
        life = self._lives[name]
        raised = life.get("raised")
        to, until = (NanoUSD(raised[0]), raised[1] / 1000) if raised and raised[1] > self.now else (None, None)
        return BudgetLife(_budget(name, life), life["source"], life["since"] / 1000, life["state"], to, until)

    def _decided(self, action: Action, name: str, source: str, detail: str = "") -> None:
        scope, _, window = name.partition(" ")
        self._found["history"].append([self.now, action, scope, window, source, detail])
        self.changed = True


def _name(key: tuple[str, str]) -> str:
    return " ".join(key)  # a scope has no spaces


def _facts(budget: Budget) -> dict[str, Any]:
    warn_at = list(budget.warn_at) if isinstance(budget.warn_at, tuple) else budget.warn_at  # as JSON gives it back
    facts: dict[str, Any] = {"limit": int(budget.limit_nanousd), "timezone": budget.timezone, "warn_at": warn_at}
    if budget.shares:
        facts["reserve"] = {scope: f"{share:f}" for scope, share in budget.shares}
    if budget.carry_over:
        facts["carry_over"] = budget.carry_over
    return facts


def _budget(name: str, facts: dict[str, Any]) -> Budget:
    scope, _, window = name.partition(" ")
    shares = {kept: Decimal(share) for kept, share in facts.get("reserve", {}).items()}
    fields = window, facts["timezone"], facts["warn_at"], shares, facts.get("carry_over", False)
    return Budget(scope, NanoUSD(facts["limit"]), *fields)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
