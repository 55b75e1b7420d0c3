"""What ``ScriptedProtocol`` asks of PostgreSQL: calls of functions, and plain queries. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.budget.backends.postgres.leases import LONGEST_KIND, SHIP_TYPES, shipped_columns
from llm_cost_middleware.budget.model import Row, rolling_seconds
from llm_cost_middleware.budget.rules import QUARTER, SLOTS, BudgetChange, EntryDelta
from llm_cost_middleware.budget.rules.leases import LEASE, HeldBlock, ParcelEntry
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.budget_protocol import Counted
from llm_cost_middleware.budget.scripted.commands import CommandFlow, Script
from llm_cost_middleware.budget.scripted.lease_protocol import AccountChange, HoldChange
from llm_cost_middleware.budget.scripted.sliced_protocol import SUFFIX, SlicedProtocol, SliceHold
from llm_cost_middleware.budget.tallies import MOST_COUNTS, tally_of
from llm_cost_middleware.errors import ConfigurationError, LedgerVersionError
from llm_cost_middleware.money import NanoUSD

T = TypeVar("T")

_PREPARE = 1819307122
"""Number of the lock under which one connection at a time prepares a database."""
_ISOLATIONS = {"read committed", "read uncommitted"}  # which are one to PostgreSQL
_ISOLATED = (
    "its role, or its database, has default_transaction_isolation = '{}', and a ledger needs 'read committed': ALTER"
    " ROLE ... SET default_transaction_isolation = 'read committed'"
)
_SUMS = (
    "SELECT scopes, created / %s AS stretch, sum(settled)::bigint, sum(pending)::bigint FROM llm_cost.entry"
    " WHERE tenant = %s AND at >= %s AND created >= %s AND strpos(' ' || scopes || ' ', %s) > 0"
    " GROUP BY scopes, stretch"
)
_DUE = (
    "SELECT id FROM llm_cost.reservation WHERE tenant = %s AND state = 'pending' AND expires <= %s"
    " ORDER BY expires LIMIT %s"
)
RESTING = -1
"""The stripe of a cell that holds what a run spent that is over; those of connections are not negative."""
_BOOKED = (
    "SELECT name FROM llm_cost.account a WHERE tenant = %s"  # noqa: S608 - fixed texts
    f" AND EXISTS (SELECT 1 FROM llm_cost.cell WHERE account = a.id AND stripe <> {RESTING})"
)
_NEW_TENANT = "INSERT INTO llm_cost.tenant (name) VALUES (%s) ON CONFLICT DO NOTHING"
_FIRST = (  # ``OFFSET``: else the planner would look for it from the oldest row on
    "SELECT coalesce(min(seq), 0) FROM (SELECT seq FROM llm_cost.entry WHERE tenant = %s AND at >= %s OFFSET 0) AS n"
)
_ROWS = "SELECT seq, kind, id, at, amount, scopes, status, created, memo FROM llm_cost.entry"


COUNTS = tuple(f"count_{number}" for number in range(1, MOST_COUNTS + 1))
"""Columns of the counts of a memo that has a tally."""


_BLOCKS = (
    "SELECT id, scopes, amount, created FROM llm_cost.reservation"
    " WHERE tenant = %s AND state = 'pending' AND starts_with(id, %s) ORDER BY id"
)


class Query(NamedTuple):
    """Query to run; its reply is the list of its rows."""

    text: str
    values: tuple[Any, ...] | dict[str, Any] = ()


class Begin(NamedTuple):
    """Begin a transaction, which ends with the flow."""


class PostgresProtocol(SlicedProtocol):
    """Ledger verbs of one tenant in one database."""

    number = 0
    """Of the tenant; set by ``initialise``."""

    def initialise(self) -> CommandFlow[None]:
        """Create or bring forward the tables, and the tenant.

        Raises:
            LedgerVersionError: A newer version wrote them.
            ConfigurationError: Transactions are isolated in a way in which two would take the same money.
        """
        ((isolation,),) = yield Query("SELECT current_setting('transaction_isolation')")
        if isolation not in _ISOLATIONS:
            raise ConfigurationError(_ISOLATED.format(isolation), key="ledger.url")
        sections = schema_sections()
        if not (yield from self._is_current(len(sections))):
            yield Begin()
            yield Query("SELECT pg_advisory_xact_lock(%s, 0)", (_PREPARE,))
            yield from self._bring_forward(sections)
        yield Query(_NEW_TENANT, (self.tenant,))
        ((self.number, now),) = yield Query(
            "SELECT id, llm_cost.moment(NULL) FROM llm_cost.tenant WHERE name = %s", (self.tenant,)
        )
        self._note_clock(now)

    def _is_current(self, newest: int) -> CommandFlow[bool]:
        """Whether the tables are of this version. Raises ``LedgerVersionError`` where they are of a newer one."""
        ((found,),) = yield Query("SELECT to_regclass('llm_cost.schema_version') IS NOT NULL")
        if not found:
            return False
        ((version, functions),) = yield Query("SELECT version, functions FROM llm_cost.schema_version")
        if version > newest:
            raise LedgerVersionError(self.url, version, newest)
        return bool(version == newest and functions == _functions_digest())

    def _bring_forward(self, sections: list[str]) -> CommandFlow[None]:
        if (yield from self._is_current(len(sections))):  # by another process, which had the lock before
            return
        yield Query("CREATE SCHEMA IF NOT EXISTS llm_cost")
        yield Query(
            "CREATE TABLE IF NOT EXISTS llm_cost.schema_version (version integer NOT NULL, functions text NOT NULL)"
        )
        found = yield Query("SELECT version FROM llm_cost.schema_version")
        for section in sections[found[0][0] if found else 0 :]:
            yield Query(section)
        yield Query(_functions())
        yield Query("DELETE FROM llm_cost.schema_version")
        yield Query("INSERT INTO llm_cost.schema_version VALUES (%s, %s)", (len(sections), _functions_digest()))

    def key(self, name: str) -> str:
        """Return the name: rows carry the tenant."""
        return name

    def within(self, step: Script, slices: list[SliceHold], draw: dict[str, int] | None) -> Script:  # noqa: ARG002 - among its arguments
        """See ``SlicedProtocol``: the same function is told the slices."""
        told = [
            {**hold._asdict(), "scopes": " ".join(hold.scopes), "postings": [list(place) for place in hold.postings]}
            for hold in slices
        ]
        return Script(step.name + SUFFIX, step.keys, [*step.args, json.dumps(told)])

    def shipping_script(
        self, entries: list[ParcelEntry], accounts: list[AccountChange], holds: list[HoldChange], head: list[Any]
    ) -> Script:
        """See ``LeaseProtocol``."""
        return Script("ship", [], [_number(head[0]), head[1], *shipped_columns(entries, accounts, holds)])

    def ask_time(self) -> CommandFlow[int]:
        """See ``ScriptedProtocol``."""
        ((now,),) = yield Query("SELECT llm_cost.moment(NULL)")
        return int(now)

    def held_blocks(self) -> CommandFlow[list[HeldBlock]]:
        """See ``SupportsLeases``."""
        return [HeldBlock(*found) for found in (yield Query(_BLOCKS, (self.number, LEASE)))]

    def ask_record(self, id_: str) -> CommandFlow[Any]:
        """See ``ScriptedProtocol``."""
        ((flat,),) = yield Query("SELECT llm_cost.record(%s, %s)", (self.number, id_))
        return [part.encode() for part in flat]

    def ask_due(self, now: int, limit: int) -> CommandFlow[list[str]]:
        """See ``ScriptedProtocol``."""
        return [id_ for (id_,) in (yield Query(_DUE, (self.number, now, limit)))]

    def ask_accounts(self) -> CommandFlow[list[tuple[str, str]]]:
        """See ``ScriptedProtocol``."""
        return [encoding.parse_account(name) for (name,) in (yield Query(_BOOKED, (self.number,)))]

    def ask_budgets(self) -> CommandFlow[dict[bytes, bytes]]:
        """See ``ScriptedProtocol``."""
        ((flat,),) = yield Query("SELECT llm_cost.budgets(%s)", (self.number,))
        return encoding.hash_fields([part.encode() for part in flat])

    def ask_deltas(self, moved: list[BudgetChange], seen: list[Any]) -> CommandFlow[Counted]:  # noqa: ARG002 - counted once
        """See ``BudgetProtocol``. Added up by SQL, while nobody else may book: ``_amend`` has the budgets to itself."""
        deltas: list[Iterable[EntryDelta]] = []
        for change in moved:
            pattern, window = change.key
            seconds, since = rolling_seconds(window), self._counts_from(change)
            # No calendar window and no slot of a rolling one begins inside of a stretch of this length.
            width = -(-seconds * 1000 // SLOTS) if seconds else QUARTER
            named = f" {pattern[:-1]}" if pattern.endswith(":*") else f" {pattern} "
            sums = yield Query(_SUMS, (width, self.number, since, since, named))
            deltas.append(
                [
                    EntryDelta(tuple(scopes.split(" ")), stretch * width, settled, pending)
                    for scopes, stretch, settled, pending in sums
                ]
            )
        return Counted("", deltas)

    def _amend(self, decide: Any) -> CommandFlow[bool]:
        yield Begin()
        yield Query("SELECT llm_cost.lock_budgets(%s, true)", (self.number,))
        return (yield from super()._amend(decide))

    def statements(self, flow: CommandFlow[T]) -> Generator[Query, Any, tuple[T | None, Exception | None]]:
        """Yield the queries of a flow, and receive their rows; return what it returned or raised.

        An error of the flow is a result, such as a refusal: the connection is as good as before.
        """
        answer: Any = None
        begun = False
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                if begun:
                    yield Query("COMMIT")
                return end.value, None
            except Exception as error:  # noqa: BLE001 - raised by whoever runs this
                if begun:
                    yield Query("ROLLBACK")
                return None, error
            if isinstance(step, Begin):
                begun = True
                answer = yield Query("BEGIN")
            elif (query := self.query_of(step)) is not None:
                answer = _reply((yield query))
            else:
                answer = yield step

    def query_of(self, step: Any) -> Query | None:
        """Return the call of a step's function; ``None`` for what is a query itself."""
        return self.statement(step) if isinstance(step, Script) else None

    def statement(self, script: Script) -> Query:
        """Return the call of a script's function."""
        name = script.name.removesuffix(SUFFIX)
        types, arguments = _FUNCTIONS[name]
        slices: tuple[Any, ...] = ()
        if name in _SLICED:
            types, slices = f"{types} jsonb", (None,)
        if name != script.name:
            script, slices = script._replace(args=script.args[:-1]), (script.args[-1],)
        marks = ", ".join(f"%s::{name}" for name in ("integer", *types.split()))
        return Query(f"SELECT llm_cost.{name}({marks})", (self.number, *arguments(script), *slices))


def _reply(rows: list[tuple[Any, ...]]) -> list[Any]:
    """Return what a function said as the scripts of Redis say it."""
    flat: list[str] = rows[0][0]
    answer = flat[0].encode() if flat else b""
    if answer == b"known":
        return [answer, [part.encode() for part in flat[1:]]]
    if answer == b"stale":
        return [answer, int(flat[1]), [part.encode() for part in flat[2:]]]
    if answer == b"refused":
        return [answer, int(flat[1]), int(flat[2]), *flat[3:]]
    if answer in {b"held", b"done", b"sums"}:
        return [answer, int(flat[1]), *(part.encode() for part in flat[2:])]
    if answer == b"late":
        return [answer, int(flat[1])]
    return [part.encode() for part in flat]  # ``ended`` with sums; of ``extend`` a record


def rows_query(tenant: int, since: int | None, scope: str | None) -> Query:
    """Return the query of rows, in the order they were written; ``read_row`` reads each."""
    text, values = f"{_ROWS} WHERE tenant = %s", [tenant]
    if since is not None:  # found by time, read by number: to sort them would take a copy of all
        text, values = f"{text} AND at >= %s AND seq >= ({_FIRST})", [*values, since, tenant, since]
    if scope is not None:
        text, values = f"{text} AND strpos(' ' || scopes || ' ', %s) > 0", [*values, f" {scope} "]  # type: ignore[list-item]  # one list, two types
    return Query(f"{text} ORDER BY seq", tuple(values))


def read_row(found: tuple[Any, ...]) -> Row:
    """Return the row of a record."""
    seq, kind, id_, at, amount, scopes, status, created, memo = found
    return Row(seq, kind, id_, at / 1000, NanoUSD(amount), tuple(scopes.split(" ")), status, created / 1000, memo)


@cache
def schema_sections() -> list[str]:
    """Return what each version of the schema added, the first one first."""
    return [section.partition("\n")[2] for section in _text("schema.sql").split("-- version ")[1:]]


def _functions() -> str:
    return "\n".join(map(_text, ("common.sql", "functions.sql", "leases.sql", "earlier.sql")))


def _functions_digest() -> str:
    from hashlib import sha1

    return sha1(_functions().encode(), usedforsecurity=False).hexdigest()


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _number(value: Any) -> int | None:
    return None if value == "" else int(value)


def _columns(args: list[Any], width: int) -> list[list[Any]]:
    return [args[column::width] for column in range(width)]


def _reserve(script: Script) -> tuple[Any, ...]:
    now, version, start, until, id_, amount, ttl, scopes, memo, forget, latest, *rest = script.args
    names, cells, firsts, limits = _columns(rest, 4)
    held = _number(now), version, start, until, id_, amount, ttl, scopes, bool(forget), latest, memo
    return (*held, names, cells, firsts, list(map(str, limits)), len(schema_sections()))


def _resolve(script: Script) -> tuple[Any, ...]:
    now, version, id_, state, charged, reconciled, verb, amount, status, memo, *more = script.args[:20]
    new_state, new_charged, settled, pending, scopes, created, start, until, writer, held = more
    names, cells, firsts, warns = _columns(script.args[20:], 4)
    seen = id_, state, charged, reconciled, verb, amount, status, new_state, new_charged, settled, pending, scopes
    tally = tally_of(memo)
    told = (None, None) if tally is None or len(tally.kind) > LONGEST_KIND else (tally.kind, list(tally.counts))
    return (
        _number(now), version, *seen, _number(created), start, until, writer, held, memo, names, cells, firsts, warns,
        *told, None, None,
    )  # fmt: skip


def _reduce(script: Script) -> tuple[Any, ...]:
    now, version, id_, created, before, amount, pending, scopes, writer, *rest = script.args
    names, cells, *_ = _columns(rest, 4)
    return _number(now), version, id_, created, before, amount, pending, scopes, writer, names, cells


def _extend(script: Script) -> tuple[Any, ...]:
    now, id_, ttl = script.args
    return _number(now), id_, ttl


def _read(script: Script) -> tuple[Any, ...]:
    now, version, start, until, *rest = script.args
    names = [name.removeprefix("a:") for name in script.keys[1:]]
    cells, firsts = _columns(rest, 2)
    return _number(now), version, start, until, names, cells, firsts


def _amend(script: Script) -> tuple[Any, ...]:
    version, _, register, count, *rest = script.args
    names, values = _columns(rest[: 2 * count], 2)
    accounts: list[str] = []
    cells: dict[tuple[str, int], list[int]] = {}
    more = iter(rest[2 * count :])
    for name in more:
        accounts.append(name)
        for _ in range(next(more) // 2):
            cell, _, which = next(more).partition(":")
            cells.setdefault((name, int(cell)), [0, 0])["sp".index(which)] = next(more)
    filled = [[name, cell, *sums] for (name, cell), sums in cells.items()]
    columns = [[row[column] for row in filled] for column in range(4)]
    return version, bytes(register).decode(), names, values, accounts, *columns


_SEEN = "bigint text text text bigint bigint"
_MADE = "text bigint text text bigint bigint bigint text bigint bigint bigint text bigint bytea"
_PLAN = "text[] bigint[] bigint[] text[]"
_FUNCTIONS: dict[str, tuple[str, Callable[[Script], tuple[Any, ...]]]] = {
    "reserve": (f"bigint text bigint bigint text bigint bigint text boolean bigint bytea {_PLAN} integer", _reserve),
    "resolve": (f"{_SEEN} {_MADE} {_PLAN} text bigint[] text bytea[]", _resolve),
    "reduce": ("bigint text text bigint bigint bigint bigint text text text[] bigint[]", _reduce),
    "extend": ("bigint text bigint", _extend),
    "read": ("bigint text bigint bigint text[] bigint[] bigint[]", _read),
    "ship": (SHIP_TYPES, lambda script: tuple(script.args)),
    "amend": ("text text text[] text[] text[] text[] bigint[] bigint[] bigint[]", _amend),
}  # fmt: skip
"""Types of a function's arguments after the tenant, and how they come from those of the script."""
_SLICED = {"reserve", "resolve", "reduce"}
"""Those that are told of the slices as well, in JSON; null for none."""
