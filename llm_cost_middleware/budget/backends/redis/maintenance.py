"""What one process at a time does to the whole of a Redis ledger: archive it, free its memory, erase a person."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.budget.backend import Erasure
from llm_cost_middleware.budget.backends.redis.storage import RedisCommand
from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.budget.rules import renamed_register
from llm_cost_middleware.budget.rules.names import digest_of
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import Script
from llm_cost_middleware.errors import LedgerError, LedgerUnavailableError

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.redis.client import RedisBackend

LEASE_MS = 60_000
_COPIED, _SCANNED, _TRIES = 500, 5_000, 1_000


class Maintenance:
    """The right to do such work, until the block that took it ends. Every step renews it."""

    def __init__(self, backend: RedisBackend) -> None:
        self.backend, self.key = backend, backend.protocol.key
        self.token = os.urandom(8).hex()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the right. Raises ``LedgerUnavailableError`` while another process has it."""
        if not self.do("SET", self.key("archiving"), self.token, "NX", "PX", LEASE_MS):
            raise LedgerUnavailableError(self.backend.protocol.url, "another process is archiving it")
        try:
            yield
        finally:
            with suppress(LedgerError):
                if self.do("GET", self.key("archiving")) == self.token.encode():
                    self.do("DEL", self.key("archiving"))

    def do(self, *words: Any) -> Any:
        """Run a command."""
        return self.backend.execute(RedisCommand(words))

    def script(self, name: str, keys: list[str], args: list[Any]) -> Any:
        """Run a script."""
        return self.backend.execute(Script(name, keys, args))

    def recopy(self, name: str, field: str = "", text: str = "", by: str = "", last: str = "") -> int:
        """Write a stream anew, with another text in a field of its entries; return how many were changed."""
        copy, start, changed = f"{name}:copy", "-", 0
        self.do("UNLINK", self.key(copy))  # of one that was cut short
        keys = [self.key("archiving"), self.key(name), self.key(copy)]
        while True:
            args = [self.token, LEASE_MS, start, _COPIED, field, text, by, last]
            copied, number = self.script("recopy", keys, args)
            changed += int(number)
            if not copied:
                return changed
            start = f"({copied.decode()}"


class RedisEraser(Maintenance):
    """Erases scopes.

    Reservations are renamed first, then sums and budgets in one step with those that were made meanwhile, so that what
    is open settles where it is held; then the rows and the journal. Killed in between, the same call completes it:
    what is under way lies under a digest of its name until it is done.
    """

    def run(self, scope: str) -> Erasure:
        """See ``Ledger.erase``."""
        with self.held():
            return self._run(scope)

    def _run(self, scope: str) -> Erasure:
        place, begun = self._begun(scope)
        alias = begun.get("alias", f"{scope.partition(':')[0]}:erased-{os.urandom(6).hex()}")
        if not begun:
            self.do("SADD", self.key("erasures"), place)  # first, or nobody would find it
            self.do("HSET", self.key(place), "alias", alias, "state", "open", "last", "0")
        if begun.get("state") != "merged":
            self._rename(scope, alias, place)
        last = self.do("HGET", self.key(place), "last").decode()
        rows = self.recopy("rows", "scopes", f" {scope} ", f" {alias} ", last)
        for line in self.backend.journal.kinds():
            self.recopy(f"marks:{line}", "data", f'"{scope}"', f'"{alias}"')
        self.do("DEL", self.key(place))
        self.do("SREM", self.key("erasures"), place)
        archives = self.do("LRANGE", self.key("archives"), 0, -1)
        others = (self._read(place.decode()) for place in self.do("SMEMBERS", self.key("erasures")))
        unfinished = tuple(sorted(other["alias"] for other in others if other))
        return Erasure(alias, rows, tuple(path.decode() for path in archives), unfinished)

    def _begun(self, scope: str) -> tuple[str, dict[str, str]]:
        """Return the key of the erasure of a scope, and what is there of one that was cut short."""
        place = f"erasure:{digest_of(scope)}"
        begun, earlier = self._read(place), self._read("erasure")
        # A version that kept no digest let one be under way at a time: it is taken for this scope's, of its kind.
        if not begun and earlier and earlier["alias"].partition(":")[0] == scope.partition(":")[0]:
            return "erasure", earlier
        return place, begun

    def _read(self, place: str) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.do("HGETALL", self.key(place)).items()}

    def _rename(self, scope: str, alias: str, place: str) -> None:
        prefix, cursor = self.key("r:"), b"0"
        while True:
            cursor, names = self.backend.execute(self.backend.protocol.scan(cursor, prefix, _SCANNED))
            for at in range(0, len(names), _COPIED):
                self.script("rename", [name.decode() for name in names[at : at + _COPIED]], [scope, alias])
            if int(cursor) == 0:
                break
        last = 0
        for _ in range(_TRIES):
            last = self._rename_newer(scope, alias, last)
            if self._merge(scope, alias, place, last)[0] == b"done":
                return
        raise LedgerUnavailableError(self.backend.protocol.url, "it is written to faster than a scope can be erased")

    def _rename_newer(self, scope: str, alias: str, last: int) -> int:
        """Rename the reservations whose rows came since; return the newest row."""
        while block := self.do("XRANGE", self.key("rows"), f"({last}-0", "+", "COUNT", _COPIED):
            rows = [encoding.read_archived(*entry) for entry in block]
            names = dict.fromkeys(f"r:{row.id}" for row in rows if f" {scope} " in f" {row.scopes} ")
            if names:
                self.script("rename", list(map(self.key, names)), [scope, alias])
            last = rows[-1].seq
        return last

    def _merge(self, scope: str, alias: str, place: str, last: int) -> Any:
        ledger = self.do("HGETALL", self.key("budgets"))
        fields: list[Any] = []
        for name, value in ledger.items():
            own, window = encoding.parse_account(name.decode())
            if name == encoding.REGISTER:
                fields += name, renamed_register(value, scope, alias)
            elif window:
                shares = value.decode().replace(f'"{scope}"', f'"{alias}"')
                if own == scope:
                    fields += name, "", encoding.account_name(alias, window), shares
                else:
                    fields += name, shares
        keys = [self.key(name) for name in ("archiving", "rows", "budgets", "accounts", place, "r:")]
        names: list[str] = []
        for name in self.do("SMEMBERS", self.key("accounts")):
            own, window = encoding.parse_account(name.decode())
            if own == scope:
                names += name.decode(), encoding.account_name(alias, window)
        resting = encoding.account_name(scope, LIFETIME)  # no list has it, where it is at rest
        if resting not in names[::2] and self.do("EXISTS", self.key(f"a:{resting}")):
            names += resting, encoding.account_name(alias, LIFETIME)
        keys += [self.key(f"a:{name}") for name in names]
        args = [self.token, LEASE_MS, last, ledger[b"version"], scope, alias, _COPIED]
        args += len(fields) // 2, *fields, *names
        return self.script("merge", keys, args)
