"""Accounts of runs that are over, in PostgreSQL: what they spent in all stays, in the account without a window.

That sum lies in a stripe of its own, by which no list of scopes finds it; the accounts of windows leave. Whoever books
again finds the sum where it was, and is listed again. Steps are short, and nobody writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_cost_middleware.budget.backends.postgres.storage import RESTING, Query
from llm_cost_middleware.budget.backends.postgres.turn import Turn
from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.budget.rules import BudgetIndex, idle_from
from llm_cost_middleware.budget.rules.accounts import COME_AND_GO
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import CommandFlow

STEP = 500
"""Accounts that are looked at in one transaction: it bounds how long the writers of the ledger wait."""

_LAST = "SELECT coalesce(max(seq), 0) FROM llm_cost.entry WHERE tenant = %s"
_VERSION = "SELECT version FROM llm_cost.tenant WHERE id = %s"
_COMES = "EXISTS (SELECT 1 FROM unnest(%s::text[]) AS k (kind) WHERE starts_with(n.scope, k.kind))"
_USED = (
    "SELECT DISTINCT n.scope FROM llm_cost.entry e, unnest(string_to_array(e.scopes, ' ')) AS n (scope)"  # noqa: S608 - fixed texts
    f" WHERE e.tenant = %s AND e.seq > %s AND e.at >= %s AND {_COMES}"
)
_HELD = (
    "SELECT DISTINCT n.scope FROM llm_cost.reservation r,"  # noqa: S608 - fixed texts
    " unnest(string_to_array(r.scopes, ' ') || r.id) AS n (scope)"  # the id of a slice is its scope
    f" WHERE r.tenant = %s AND r.state = 'pending' AND {_COMES}"
)
_FOUND = (
    "SELECT n.scope FROM llm_cost.account a, LATERAL (SELECT a.name) AS n (scope) WHERE a.tenant = %s AND a.name > %s"  # noqa: S608 - fixed texts
    f" AND {_COMES} AND EXISTS (SELECT 1 FROM llm_cost.cell c WHERE c.account = a.id AND c.stripe <> {RESTING})"
    f" ORDER BY a.name LIMIT {STEP}"
)
_SUMS = (
    "SELECT a.id, a.name, c.cell, sum(c.settled)::bigint FROM llm_cost.account a"
    " JOIN llm_cost.cell c ON c.account = a.id WHERE a.tenant = %s AND a.name = ANY (%s) GROUP BY a.id, a.name, c.cell"
)
_HELD_IN = (
    "SELECT a.id FROM llm_cost.account a JOIN llm_cost.cell c ON c.account = a.id"
    " WHERE a.tenant = %s AND a.name = ANY (%s) GROUP BY a.id HAVING sum(c.pending) <> 0"
)
_LEAVE = ("DELETE FROM llm_cost.cell WHERE account = ANY (%s)", "DELETE FROM llm_cost.account WHERE id = ANY (%s)")
_STAY = (
    "INSERT INTO llm_cost.cell (account, cell, stripe, settled, pending)"  # noqa: S608 - fixed texts
    f" SELECT n.account, n.cell, {RESTING}, n.settled, 0"
    " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS n (account, cell, settled)"
)


class PostgresResting:
    """Lays accounts of one tenant to rest, in its turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn, self._tenant = turn, turn.tenant
        self._last = self._version = 0

    def begin(self) -> None:
        """Look at the ledger while nobody writes: rows with smaller numbers than the last are all there."""
        self._version, self._last = self._turn.step(self._look)

    def run(self, index: BudgetIndex, now: int, idle: int) -> int:
        """See ``SupportsResting``; the budgets were read after ``begin``."""
        used = self._turn.step(lambda: self._used(0, idle_from(index.budgets, now, idle)))
        rested, after = set[str](), ""
        while True:
            found = [name for (name,) in self._turn.ask(_FOUND, self._tenant, after, list(COME_AND_GO))]
            scopes = {name: encoding.parse_account(name)[0] for name in found}
            idle_ones = [name for name in found if index.comes_and_goes(scopes[name]) and scopes[name] not in used]
            if idle_ones:
                laid = self._turn.step(lambda names=idle_ones: self._lay(names))  # type: ignore[misc]  # bound now
                if laid is None:  # other budgets came into force meanwhile
                    return len(rested)
                rested |= laid
            if len(found) < STEP:
                return len(rested)
            after = found[-1]

    def _look(self) -> CommandFlow[tuple[int, int]]:
        yield Query("SELECT llm_cost.lock_budgets(%s, true)", (self._tenant,))
        ((version,),) = yield Query(_VERSION, (self._tenant,))
        ((last,),) = yield Query(_LAST, (self._tenant,))
        return int(version), int(last)

    def _used(self, after: int, since: int) -> CommandFlow[set[str]]:
        """Scopes that something was booked in, or is held in."""
        kinds = list(COME_AND_GO)
        booked = yield Query(_USED, (self._tenant, after, since, kinds))
        held = yield Query(_HELD, (self._tenant, kinds))
        return {scope for (scope,) in (*booked, *held)}

    def _lay(self, names: Iterable[str]) -> CommandFlow[set[str] | None]:
        """Shorten some accounts; ``None`` where other budgets are in force."""
        yield Query("SELECT llm_cost.lock_budgets(%s, true)", (self._tenant,))
        ((version,),) = yield Query(_VERSION, (self._tenant,))
        if version != self._version:
            return None
        used = yield from self._used(self._last, 0)
        free = [name for name in names if encoding.parse_account(name)[0] not in used]
        held = {account for (account,) in (yield Query(_HELD_IN, (self._tenant, free)))}
        sums = [row for row in (yield Query(_SUMS, (self._tenant, free))) if row[0] not in held]
        kept = [row for row in sums if encoding.parse_account(row[1])[1] == LIFETIME and row[3]]
        staying = {row[0] for row in kept}
        yield Query(_LEAVE[0], ([row[0] for row in sums],))
        yield Query(_STAY, ([row[0] for row in kept], [row[2] for row in kept], [row[3] for row in kept]))
        yield Query(_LEAVE[1], ([row[0] for row in sums if row[0] not in staying],))
        return {encoding.parse_account(row[1])[0] for row in sums}
