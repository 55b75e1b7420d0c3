"""A backend that the package does not know: written on the contract alone, proven by the shipped suite, used by URL."""

from __future__ import annotations

import asyncio
from threading import RLock

import pytest
from msgspec.structs import replace

from llm_cost_middleware import AsyncLedger, BudgetExceededError, ConfigurationError, CostConfig, CostPipeline, Ledger
from llm_cost_middleware.budget import rules
from llm_cost_middleware.budget.backend import AsyncAdapter, Snapshot
from llm_cost_middleware.budget.model import LIFETIME, Row
from llm_cost_middleware.errors import ReservationNotFoundError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.testing import BlockingFacade, LedgerBackendTests
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport


class Shelf:
    """The storage: what outlives its backends."""

    def __init__(self):
        self.lock, self.records, self.refusals, self.budgets, self.warned = RLock(), {}, {}, {}, {}
        self.rows, self.deltas = [], []


class ShelfBackend:
    """Every sum is computed from the rows when it is needed: slow, and nothing to get wrong."""

    blocks = True

    def __init__(self, shelf, clock):
        self.shelf, self.clock = shelf, clock

    @property
    def now(self):
        return int(self.clock.now() * 1000)

    @property
    def index(self):
        return rules.BudgetIndex(self.shelf.budgets.values())

    def sums(self, posting):
        budget = self.index.for_scope(posting.scope).get(posting.window)
        zone, settled, pending = budget.timezone if budget else "UTC", 0, 0
        for delta in self.shelf.deltas:
            cell = rules.window_at(posting.window, zone, delta.created).cell
            if posting.scope in delta.scopes and (
                cell >= posting.first_cell if posting.rolling else cell == posting.cell
            ):
                settled, pending = settled + delta.settled, pending + delta.pending
        return settled, pending

    def append(self, kind, record, at, amount, status, settled, pending, memo):
        row = (len(self.shelf.rows) + 1, kind, record.id, at / 1000, NanoUSD(amount), record.scopes, status)
        self.shelf.rows.append(Row(*row, record.created / 1000, memo))
        self.shelf.deltas.append(rules.EntryDelta(record.scopes, record.created, settled, pending))

    def reserve(self, id_, amount, scopes, ttl, memo, *, fresh):
        with self.shelf.lock:
            now, known = self.now, self.shelf.records.get(id_)
            if known is not None:
                rules.check_replay(known, amount, scopes)
                if known.state == "refused":
                    raise self.shelf.refusals[id_].error()
                return known.reservation()
            record = rules.ReservationRecord(id_, scopes, amount, now, now + ttl)
            for posting in self.index.posting_plan(scopes, now).postings:
                settled, pending = self.sums(posting)
                if posting.limit is not None and settled + pending + amount > posting.limit:
                    account = posting.scope, posting.window, posting.limit, settled, pending
                    refusal = rules.BudgetRefusal(*account, amount, posting.resets, posting.kept)
                    if not fresh:
                        self.shelf.records[id_] = replace(record, state="refused")
                        self.shelf.refusals[id_] = refusal
                    raise refusal.error()
            self.shelf.records[id_] = record
            self.append("reserve", record, now, amount, "reserved", 0, amount, memo)
            return record.reservation()

    def resolve(self, verb, id_, amount, *, scopes=(), status, memo=b""):
        with self.shelf.lock:
            now, record = self.now, self.shelf.records.get(id_)
            if verb == "book":
                if record is not None:
                    rules.check_replay(record, amount, scopes, booked=True)
                    return record.replay(verb)
                record = rules.ReservationRecord(id_, scopes, 0, now, now, verb="book")
            if record is None:
                raise ReservationNotFoundError(id_)
            transition = rules.resolve(record, verb, amount)
            if transition is None:
                return record.replay(verb)
            self.shelf.records[id_] = record
            self.append(verb, record, now, amount, status, transition.settled, transition.pending, memo)
            rules.apply(record, verb, transition, amount, status, now)
            told = {} if verb in {"void", "expire"} else dict(self.crossed(record, transition.settled))
            return record.told(verb, told)

    def crossed(self, record, change):
        for posting in self.index.posting_plan(record.scopes, record.created).postings:
            key = posting.scope, posting.window
            settled = self.sums(posting)[0]
            if posting.warn is None or settled < posting.warn:
                continue
            first = self.shelf.warned.get(key, -1) < posting.first_cell
            if first:
                self.shelf.warned[key] = posting.cell
            threshold = posting.crossed(settled, change, first=first)
            if threshold is not None:
                yield key, threshold

    def extend(self, id_, ttl):
        with self.shelf.lock:
            if id_ not in self.shelf.records:
                raise ReservationNotFoundError(id_)
            self.shelf.records[id_].extend(self.now + ttl)
            return self.shelf.records[id_].reservation()

    def sweep(self, *, charge, limit):
        with self.shelf.lock:
            records = self.shelf.records.values()
            due = [record for record in records if record.state == "pending" and record.expires <= self.now][:limit]
            for record in due:
                self.resolve("expire", record.id, record.amount if charge else 0, status="unconfirmed")
            return len(due)

    def read(self, scopes):
        with self.shelf.lock:
            index, now = self.index, self.now
            if scopes is None:
                scopes = rules.known_scopes(index, (scope for delta in self.shelf.deltas for scope in delta.scopes))
            postings = index.posting_plan(scopes, now).postings
            totals = [rules.AccountTotals(one.scope, one.window, *self.sums(one)) for one in postings]
            return Snapshot(index, now, tuple(totals))

    def rows(self, since, scope):
        for row in list(self.shelf.rows):
            if (since is None or row.at * 1000 >= since) and (scope is None or scope in row.scopes):
                yield row

    def set_budget(self, budget):
        self.shelf.budgets[budget.key] = budget

    def remove_budget(self, scope, window):
        return self.shelf.budgets.pop((scope, window), None) is not None

    def close(self):
        pass


class TestOutOfTree(LedgerBackendTests):
    @pytest.fixture(autouse=True)
    def storage(self):
        self.shelf = Shelf()

    def open(self, clock):
        return ShelfBackend(self.shelf, clock)

    def raw_rows(self, _backend):
        return self.shelf.rows


class TestOutOfTreeFromAnEventLoop(TestOutOfTree):
    threads = 1  # one loop

    def open(self, clock):
        return BlockingFacade(AsyncAdapter(super().open(clock)))


SHELVES = {}
REQUEST = CallRequest("anthropic", "claude-haiku-4-5", (Message("user", (Part("text", "hi"),)),), max_tokens=10)
READING = UsageReport((BilledItem(TokenUsage(uncached_input=3, output=7)),), "claude-haiku-4-5", complete=True)
COST = 3 * 1_000 + 7 * 5_000  # nano-dollars


def open_shelf(options):
    return ShelfBackend(SHELVES.setdefault((options.tenant, options.rest), Shelf()), options.clock)


def pay(pipeline):
    pipeline.run(REQUEST, lambda _: CallResult("hello", READING), providers=frozenset({"anthropic"}))

    async def send(_):
        return CallResult("hello", READING)

    async def apay():
        await pipeline.arun(REQUEST, send, providers=frozenset({"anthropic"}))

    asyncio.run(apay())


def test_a_registered_scheme_serves_ledgers_of_both_kinds_and_pipelines():
    with pytest.raises(ConfigurationError, match="none of"):
        Ledger.open("shelf://x")
    Ledger.register("shelf", open_shelf)
    budgets = [{"scope": "global", "limit": "5"}]
    with CostPipeline(CostConfig(ledger={"url": "shelf://one"}, budgets=budgets)) as pipeline:
        assert pipeline.ledger.blocks
        pay(pipeline)
        assert pipeline.ledger.balance("global").settled_nanousd == 2 * COST
    rows = SHELVES["default", "one"].rows
    assert [row.kind for row in rows] == ["reserve", "settle"] * 2

    async def balance():
        async with AsyncLedger.open("shelf://one", clock=pipeline.clock) as ledger:
            with pytest.raises(BudgetExceededError):
                await ledger.reserve("5")
            return await ledger.balance("global")

    assert asyncio.run(balance()).settled_nanousd == 2 * COST
    with pytest.raises(ConfigurationError, match=r"postgresql://host:port/database, shelf://"):
        Ledger.open("shelve://x")
    for scheme in ("sqlite", "memory", "No scheme"):
        with pytest.raises(ConfigurationError):
            Ledger.register(scheme, open_shelf)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pipeline_takes_a_backend_or_a_ledger_and_leaves_it_open(wrapped):
    class Closable(ShelfBackend):
        closed = False

        def close(self):
            self.closed = True

    pipeline = CostPipeline()
    backend = Closable(Shelf(), pipeline.clock)
    pipeline = CostPipeline(ledger=Ledger(backend) if wrapped else backend)
    pay(pipeline)
    assert pipeline.ledger.backend is backend
    assert pipeline.ledger.balance("global").settled_nanousd == 2 * COST
    assert not list(backend.read((LIFETIME,)).budget_index.budgets)
    asyncio.run(pipeline.aclose())
    assert not backend.closed
    with pytest.raises(ConfigurationError, match=r"neither a backend nor a Ledger"):
        CostPipeline(ledger=AsyncLedger.open("memory://"))
