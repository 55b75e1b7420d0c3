"""Notes beside money, written by the function that resolves: a call takes two transactions. No I/O."""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.budget.backends.postgres.storage import PostgresProtocol, Query
from llm_cost_middleware.budget.model import Receipt, RowStatus, Verb
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.budget.scripted.commands import CommandFlow, Script
from llm_cost_middleware.budget.scripted.sliced_protocol import SUFFIX

T = TypeVar("T")
_log = logging.getLogger(__name__)
SHARED = "SELECT key, data FROM llm_cost.shared WHERE tenant = %s AND key = ANY (%s)"
KEPT = 20_000
"""Shared values that are kept, about."""
_TRIM_EVERY = 256


class NotedScript(NamedTuple):
    """Step with notes: what they are, in JSON, and the bytes of each."""

    script: Script
    told: str
    data: list[bytes]


class NotedProtocol(PostgresProtocol):
    """Ledger verbs of one tenant in one database, which take notes."""

    _changes = 0

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b"",
        notes: Notes | None = None,
    ) -> CommandFlow[Receipt]:  # fmt: skip
        """See ``Backend``; ``notes`` as ``SupportsNotes`` says."""
        flow = super().resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo)
        if notes is None:
            return (yield from flow)
        told = yield from self._told(notes)
        reply: Any = None
        written = True  # where the reply is lost, and it is sent again: the first one wrote them
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as end:
                receipt: Receipt = end.value
                notes.written = told is not None and (receipt.repeated or written)
                return receipt
            noted = told is not None and isinstance(step, Script) and step.name.removesuffix(SUFFIX) == "resolve"
            reply = yield NotedScript(step, *told) if noted and told is not None else step
            if noted and reply[0] == b"done":
                written = reply[2] == b"1"

    def _told(self, notes: Notes) -> CommandFlow[tuple[str, list[bytes]] | None]:
        told: dict[str, Any] = {"lines": [[line.kind, line.id, line.at] for line in notes.lines]}
        data = [line.data for line in notes.lines]
        change = notes.change
        try:
            if change is not None and change.keys:
                if any("\0" in key for key in change.keys):
                    raise ValueError("a key that PostgreSQL does not take")  # noqa: TRY301 - as what ``to`` raises
                "".join(change.keys).encode()
                found = dict((yield Query(SHARED, (self.number, list(change.keys)))))
                data += change.to([None if key not in found else bytes(found[key]) for key in change.keys])
                self._changes += 1
                keep = KEPT if self._changes % _TRIM_EVERY == 0 else None
                told |= {"keys": list(change.keys), "at": change.at, "keep": keep}
            return json.dumps(told), data
        except Exception as error:  # noqa: BLE001 - theirs: the money is booked all the same
            _log.debug("notes were not written with their call: %s", error)
            return None

    def query_of(self, step: Any) -> Query | None:
        """See ``PostgresProtocol``."""
        if not isinstance(step, NotedScript):
            return super().query_of(step)
        query = self.statement(step.script)
        *values, _, _, slices = query.values
        return query._replace(values=(*values, step.told, step.data, slices))
