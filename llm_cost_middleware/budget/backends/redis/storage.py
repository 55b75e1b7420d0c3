"""What ``ScriptedProtocol`` asks of Redis besides its scripts: keys, and plain commands. No I/O."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from llm_cost_middleware.budget.backends.redis.slices import sliced_script
from llm_cost_middleware.budget.rules import BudgetChange, EntryDelta
from llm_cost_middleware.budget.rules.leases import LEASE, HeldBlock, ParcelEntry
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.budget_protocol import Counted
from llm_cost_middleware.budget.scripted.commands import BLOCK, CommandFlow, Script
from llm_cost_middleware.budget.scripted.lease_protocol import AccountChange, HoldChange
from llm_cost_middleware.budget.scripted.sliced_protocol import SlicedProtocol, SliceHold
from llm_cost_middleware.errors import LedgerVersionError

SCHEMA = 5
Stream = list[tuple[bytes, dict[bytes, bytes]]]
_READING_MS, _HOUR_MS = 30_000, 3_600_000
_NONE = 2**62  # above every row number


class RedisCommand(NamedTuple):
    """Plain command to run."""

    words: tuple[Any, ...]


class _Deltas:
    """What rows changed in the sums, of holds made from ``since`` (ms) on, up to the row ``last``."""

    def __init__(self, since: int, last: int) -> None:
        self.since, self.last = since, last
        self.budgets: list[tuple[str, str]] = []


class RedisProtocol(SlicedProtocol):
    """Ledger verbs of one tenant on one server."""

    common_names = (*SlicedProtocol.common_names, "moments")

    def initialise(self) -> CommandFlow[None]:
        """Create the tenant's keys if they are missing. Raises ``LedgerVersionError`` if a newer version wrote them."""
        self._note_clock((yield from self.ask_time()))
        before_5 = f"{self.key('')}budgets"
        keys = [before_5, self.key("budgets"), self.key("moments")]
        found = int((yield Script("open", keys, [SCHEMA, self._time()])))
        if found > SCHEMA:
            raise LedgerVersionError(self.url, found, SCHEMA)
        if found < SCHEMA:
            yield from self._list_kinds()

    def _list_kinds(self) -> CommandFlow[None]:
        """Find the kinds of lines that an old journal has, and keep them: a search of every key, once."""
        prefix, cursor, kinds = self.key("marks:"), b"0", set[str]()
        while True:
            cursor, names = yield self.scan(cursor, prefix)
            kinds |= {name.decode().removeprefix(prefix) for name in names}
            if int(cursor) == 0:
                break
        if kinds:
            yield RedisCommand(("SADD", self.key("kinds"), *sorted(kinds)))

    def key(self, name: str) -> str:
        """Return the key of a name of this tenant; the braces put all of them into one slot of a cluster."""
        # Where versions before 5 look for budgets, something stands that makes them refuse (``open.lua``).
        return f"{{llm-cost:{self.tenant}}}:{'ledger' if name == 'budgets' else name}"

    def scan(self, cursor: bytes, prefix: str, count: int = 5_000) -> Script:
        """Return the step that looks for keys that begin so, on the node of a cluster where all of a tenant's are."""
        return Script("scan", [self.key("budgets")], [cursor, f"{glob_escaped(prefix)}*", count])

    def within(self, step: Script, slices: list[SliceHold], draw: dict[str, int] | None) -> Script:
        """See ``SlicedProtocol``."""
        return sliced_script(self.key, step, slices, draw)

    def shipping_script(
        self, entries: list[ParcelEntry], accounts: list[AccountChange], holds: list[HoldChange], head: list[Any]
    ) -> Script:
        """See ``LeaseProtocol``."""
        keys = [*self._common_keys, *(self.key(f"r:{entry.id}") for entry in entries)]
        keys += [self.key(f"a:{change.name}") for change in accounts]
        args = [*head, len(entries), len(accounts), len(holds)]
        for entry in entries:
            args += entry.kind, entry.id, " ".join(entry.scopes), int(entry.amount), entry.created, entry.expires
            args += entry.status, entry.memo
        for change in accounts:
            args += change
        for hold in holds:
            keys += [self.key(f"r:{hold.id}"), *(self.key(f"a:{name}") for name, _ in hold.postings)]
            args += *hold[:5], len(hold.postings), *(cell for _, cell in hold.postings)
        return Script("ship", keys, args)

    def held_blocks(self) -> CommandFlow[list[HeldBlock]]:
        """See ``SupportsLeases``. Looks at every hold that is open."""
        found, cursor = set[HeldBlock](), 0
        while True:
            look = "ZSCAN", self.key("open"), cursor, "MATCH", f"{LEASE}*", "COUNT", 1000
            cursor, names = yield RedisCommand(look)
            for name in {name.decode() for name, _ in names}:
                ask = "HMGET", self.key(f"r:{name}"), "state", "scopes", "amount", "created"
                state, scope, amount, created = yield RedisCommand(ask)
                if state == b"pending":
                    found.add(HeldBlock(name, scope.decode(), int(amount), int(created)))
            if int(cursor) == 0:
                return sorted(found)

    def ask_time(self) -> CommandFlow[int]:
        """See ``ScriptedProtocol``."""
        seconds, micros = yield Script("time", [self.key("budgets")], [])
        return int(seconds) * 1000 + int(micros) // 1000

    def ask_record(self, id_: str) -> CommandFlow[Any]:
        """See ``ScriptedProtocol``."""
        return (yield Script("record", [self.key(f"r:{id_}")], [id_]))

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
        """See ``BudgetProtocol``. Only what changed is kept of the rows, and rows of earlier times are not read."""
        starts, budgets = [self._counts_from(change) for change in moved], [change.key for change in moved]
        whole = not seen or min(starts) < seen[0].since or budgets != seen[0].budgets
        if whole:
            # First: where no row is of these times yet, those that come after this number are.
            newest = int((yield RedisCommand(("GET", self.key("seq")))) or 0)
            first = yield from self.before_first_row(min(starts))
            seen[:] = [_Deltas(min(starts), min(first, newest))]
            seen[0].budgets = budgets
        counted: _Deltas = seen[0]
        found: list[EntryDelta] = []
        newest = int((yield RedisCommand(("GET", self.key("seq")))) or 0)  # first: the last rows may be archived ones
        counted.last = min(counted.last, newest)
        # Nobody is told of this reading: where rows are archived meanwhile, the budgets have another version after it.
        while block := (yield RedisCommand(("XRANGE", self.key("rows"), f"({counted.last}-0", "+", "COUNT", BLOCK))):
            found += encoding.read_deltas(block, counted.since)
            counted.last = encoding.row_number(block[-1][0])
            if len(block) < BLOCK:  # not a round trip more, which would bring more rows
                break
        counted.last = max(counted.last, newest)
        deltas: list[Iterable[EntryDelta]] = [[one for one in found if one.created >= start] for start in starts]
        return Counted(str(counted.last), deltas, whole)

    def new_reader(self) -> str:
        """Name somebody who reads rows."""
        return os.urandom(8).hex()

    def read_block(self, after: int, reader: str, most: int = BLOCK) -> CommandFlow[Stream]:
        """Read the next rows of the stream. Until ``end_reading``, or for half a minute, no archive takes any away."""
        keys, start = [self.key("readers"), self.key("rows")], f"({after}-0" if after else "-"
        found = yield Script("block", keys, [reader, _READING_MS, start, most])
        return [(place, encoding.hash_fields(fields)) for place, fields in found]

    def end_reading(self, reader: str) -> CommandFlow[None]:
        """Let archives go on."""
        yield RedisCommand(("ZREM", self.key("readers"), reader))

    def before_first_row(self, since: int | None) -> CommandFlow[int]:
        """Return a row number below that of every row at or after ``since`` (ms)."""
        if since is None:
            return 0
        moments = yield RedisCommand(("HGETALL", self.key("moments")))
        return min((int(row) for hour, row in moments.items() if int(hour) >= since // _HOUR_MS), default=_NONE) - 1

    def current_ms(self) -> CommandFlow[int]:
        """Return the time of the injected clock, or of the server."""
        now = self._time()
        return now if isinstance(now, int) else self._note_server_time((yield from self.ask_time()))


def glob_escaped(text: str) -> str:
    """Return a pattern of Redis that this text alone matches."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)
