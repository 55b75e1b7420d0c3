"""What ``ScriptedProtocol`` asks of Redis besides its scripts: keys, and plain commands. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

from llm_cost_middleware.budget.backends.redis.slices import SlicedProtocol
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules import BudgetChange
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.budget_protocol import Counted
from llm_cost_middleware.budget.scripted.commands import BLOCK, CommandFlow
from llm_cost_middleware.errors import LedgerVersionError

SCHEMA = 4
Stream = list[tuple[bytes, dict[bytes, bytes]]]


class RedisCommand(NamedTuple):
    """Plain command to run."""

    words: tuple[Any, ...]


class RedisProtocol(SlicedProtocol):
    """Ledger verbs of one tenant on one server."""

    def initialise(self) -> CommandFlow[None]:
        """Create the tenant's keys if they are missing. Raises ``LedgerVersionError`` if a newer version wrote them."""
        self._note_clock((yield from self.ask_time()))
        yield RedisCommand(("HSETNX", self.key("budgets"), "schema", SCHEMA))
        yield RedisCommand(("HSETNX", self.key("budgets"), "version", 1))
        found = int((yield RedisCommand(("HGET", self.key("budgets"), "schema"))))
        if found > SCHEMA:
            raise LedgerVersionError(self.url, found, SCHEMA)
        if found < SCHEMA:  # all that it has is readable; from here on older versions would misread what is written
            yield RedisCommand(("HSET", self.key("budgets"), "schema", SCHEMA))

    def key(self, name: str) -> str:
        """Return the key of a name of this tenant; the braces put all of them into one slot of a cluster."""
        return f"{{llm-cost:{self.tenant}}}:{name}"

    def ask_time(self) -> CommandFlow[int]:
        """See ``ScriptedProtocol``."""
        seconds, micros = yield RedisCommand(("TIME",))
        return int(seconds) * 1000 + int(micros) // 1000

    def ask_record(self, id_: str) -> CommandFlow[Any]:
        """See ``ScriptedProtocol``."""
        return (yield RedisCommand(("HGETALL", self.key(f"r:{id_}"))))

    def ask_due(self, now: int, limit: int) -> CommandFlow[list[str]]:
        """See ``ScriptedProtocol``."""
        over = yield RedisCommand(("ZRANGEBYSCORE", self.key("open"), "-inf", now, "LIMIT", 0, limit))
        return [name.decode() for name in over]

    def ask_accounts(self) -> CommandFlow[list[tuple[str, str]]]:
        """See ``ScriptedProtocol``."""
        names = yield RedisCommand(("SMEMBERS", self.key("accounts")))
        return [encoding.parse_account(name.decode()) for name in names]

    def ask_budgets(self) -> CommandFlow[dict[bytes, bytes]]:
        """See ``ScriptedProtocol``."""
        found: dict[bytes, bytes] = yield RedisCommand(("HGETALL", self.key("budgets")))
        return found

    def ask_deltas(self, moved: list[BudgetChange], seen: list[Any]) -> CommandFlow[Counted]:
        """See ``BudgetProtocol``."""
        last = encoding.row_number(seen[-1][0]) if seen else 0
        while block := (yield from self.read_block(last)):
            seen += block
            last = encoding.row_number(block[-1][0])
        return Counted(str(last), [encoding.read_deltas(seen, self._counts_from(change)) for change in moved])

    def read_block(self, after: int) -> CommandFlow[Stream]:
        """Read the next rows of the stream."""
        found: Stream
        found = yield RedisCommand(("XRANGE", self.key("rows"), f"({after}-0" if after else "-", "+", "COUNT", BLOCK))
        return found

    def row_wanted(self, row: Row, since: int | None, scope: str | None) -> bool:
        """Return whether a row passes the filters of ``rows``."""
        return (since is None or row.at * 1000 >= since) and (scope is None or scope in row.scopes)
