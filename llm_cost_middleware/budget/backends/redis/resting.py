"""Accounts of runs that are over, on Redis: what they spent in all stays, in the account without a window.

The accounts of windows that are over leave, and no list of scopes names them any more. Whoever books again finds the
sum where it was, and is listed again. Each account is changed only if it is still as it was when it was found idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from llm_cost_middleware.budget.backends.redis.maintenance import LEASE_MS, Maintenance
from llm_cost_middleware.budget.backends.redis.storage import RedisCommand
from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.budget.rules import BudgetIndex, idle_from
from llm_cost_middleware.budget.scripted import encoding

STEP = 100
"""Accounts that are looked at in one step: it bounds how long the server is busy with them."""
_SCANNED = 1_000


class RedisResting(Maintenance):
    """Lays accounts of one ledger to rest."""

    def run(self, idle: int) -> int:
        """See ``SupportsResting``."""
        with self.held():
            version = self.do("HGET", self.key("budgets"), "version") or b""
            index = self.backend.read(()).budget_index
            since = idle_from(index.budgets, self.backend.now_ms(), idle)
            found, rested = self._idle(index, self._used(since)), set[str]()
            while names := list(islice(found, STEP)):
                if not self._lay(names, version, rested):
                    break
            return len(rested)

    def _used(self, since: int) -> set[str]:
        """Scopes that something was booked in since, or is held in."""
        last = self.backend.drive(self.backend.protocol.before_first_row(since))
        used: set[str] = set()
        while block := self.do("XRANGE", self.key("rows"), f"({last}-0", "+", "COUNT", _SCANNED):
            for stream_id, fields in block:
                last = encoding.row_number(stream_id)
                if int(fields[b"at"]) >= since:
                    used.update(fields[b"scopes"].decode().split(" "))
        for id_ in self.do("ZRANGE", self.key("open"), 0, -1):
            scopes = self.do("HGET", self.key(f"r:{id_.decode()}"), "scopes") or b""
            used.update((id_.decode(), *scopes.decode().split(" ")))  # the id of a slice is its scope
        return used

    def _idle(self, index: BudgetIndex, used: set[str]) -> Iterator[str]:
        cursor = b"0"
        while True:
            cursor, names = self.do("SSCAN", self.key("accounts"), cursor, "COUNT", _SCANNED)
            for name in names:
                scope = encoding.parse_account(name.decode())[0]
                if index.comes_and_goes(scope) and scope not in used:
                    yield name.decode()
            if int(cursor) == 0:
                return

    def _lay(self, names: list[str], version: bytes, rested: set[str]) -> bool:
        """Shorten some accounts; return false where other budgets came into force meanwhile."""
        keys = [self.key("archiving"), self.key("budgets"), self.key("accounts")]
        args: list[str | int | bytes] = [self.token, LEASE_MS, version]
        for name in names:
            scope, window = encoding.parse_account(name)
            key = self.key(f"a:{name}")
            fields = self.backend.execute(RedisCommand(("HGETALL", key)))
            keys.append(key)
            flat = b" ".join(part for pair in fields.items() for part in pair)
            args += [name, "" if window == LIFETIME else "1", flat]
            rested.add(scope)
        return bool(self.script("rest", keys, args)[0] == b"done")
