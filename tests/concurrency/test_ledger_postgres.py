"""PostgreSQL killed, frozen, promoted, pooled and limited while a ledger works on it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager

import psycopg
import pytest
from ports import free_port
from postgres_servers import PostgresServer, needed

from llm_cost_middleware.budget.backends.postgres import connections
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.budget.model import LIFETIME, Budget
from llm_cost_middleware.budget.scripted import encoding, patience, protocol
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    LedgerUnavailableError,
    LedgerVersionError,
)
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit

BOUND = NanoUSD(1000)


@pytest.fixture(scope="module")
def harmed():
    """A server of these tests alone, which they may harm: with the disk as it is."""
    needed()
    with PostgresServer() as server:
        yield server


@pytest.fixture
def server(harmed):
    """The server, with an empty ledger; it runs again after a test that ended it."""
    yield harmed
    harmed.restart()
    with psycopg.connect(harmed.url, autocommit=True) as db:
        db.execute("ALTER ROLE postgres RESET ALL")
        db.execute("DROP SCHEMA IF EXISTS llm_cost CASCADE")


def wait_until_up(ledger):
    for _ in range(1_000):
        try:
            return ledger.balance("global")
        except LedgerUnavailableError:
            time.sleep(0.05)
    raise AssertionError("it does not come back")


@contextmanager
def working(ledger, threads=4):
    """Threads that reserve and settle; yields what was acknowledged and the errors they met."""
    acknowledged, errors, stop = [], [], threading.Event()

    def work(name):
        while not stop.is_set():
            try:
                held = ledger.reserve(BOUND, [f"user:{name}"])
                acknowledged.append(("reserve", held.id))
                ledger.settle(held.id, NanoUSD(900))
                acknowledged.append(("settle", held.id))
            except LedgerUnavailableError as error:
                errors.append(error)
                return

    busy = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for thread in busy:
        thread.start()
    yield acknowledged, errors
    stop.set()
    for thread in busy:
        thread.join(timeout=300)


def check(ledger, acknowledged=()):
    rows = list(ledger.rows())
    audit(ledger._backend.read(None), rows)
    written = [(row.kind, row.id) for row in rows]
    assert len(written) == len(set(written)), "nothing is booked twice"
    assert set(acknowledged) <= set(written), "what was acknowledged is there"


def test_what_was_acknowledged_survives_a_kill_and_the_restart_is_bridged(server):
    with Ledger.open(server.url) as ledger:
        ledger.set_budget(Budget("user:*", "5", "day"))
        with working(ledger) as (acknowledged, errors):
            time.sleep(0.3)
            server.kill()
            server.start()
            before = len(acknowledged)
            time.sleep(0.3)
        assert before
        assert not errors or str(errors[0])
        wait_until_up(ledger)
        check(ledger, acknowledged)
        ledger.settle(ledger.reserve("0.1").id, "0.1")


def test_a_server_that_is_gone_is_an_error_and_no_open_door(server):
    with Ledger.open(server.url) as ledger:
        ledger.set_budget(Budget("global", "1"))
        server.kill()
        with pytest.raises(LedgerUnavailableError):
            ledger.reserve("0.1")
        server.start()
        wait_until_up(ledger)
        assert ledger.balance("global").pending_nanousd == 0


def test_connections_that_are_ended_under_load_lose_and_double_nothing(server):
    with Ledger.open(server.url) as ledger, psycopg.connect(server.url, autocommit=True) as db:
        with working(ledger) as (acknowledged, errors):
            for _ in range(20):
                db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'llm-cost-middleware'"
                )
                before = len(acknowledged)
                while len(acknowledged) < before + 2 and not errors:
                    time.sleep(0.001)
        assert not errors
        check(ledger, acknowledged)


def test_a_frozen_server_refuses_in_time_and_its_late_execution_is_undone(server, monkeypatch):
    for module in (patience, connections):
        monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    for module in (patience, protocol):
        monkeypatch.setattr(module, "PATIENCE_MS", 600)
    for made in connections.classes():
        monkeypatch.setattr(made, "timeout_s", 0.2)
    with Ledger.open(server.url) as ledger:
        ledger.set_budget(Budget("global", "1"))
        ledger.settle(ledger.reserve("0.1").id, "0.1")
        server.signal(signal.SIGSTOP)
        begin = time.monotonic()
        try:
            with pytest.raises(LedgerUnavailableError):
                ledger.reserve("0.1")
            assert time.monotonic() - begin < 5
        finally:
            time.sleep(0.5)
            server.signal(signal.SIGCONT)
        wait_until_up(ledger)
        time.sleep(0.2)
        assert ledger.balance("global").pending_nanousd == 0
        check(ledger)


def test_a_promoted_standby_has_what_was_acknowledged(tmp_path):
    needed()
    with PostgresServer() as first, PostgresServer(of=first) as second:
        with psycopg.connect(first.url, autocommit=True) as db:
            db.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            db.execute("SELECT pg_reload_conf()")
        ports = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        url = f"postgresql://postgres@{ports}/postgres?target_session_attrs=read-write"
        with Ledger.open(url) as ledger:
            ledger.set_budget(Budget("global", "1"))
            with working(ledger, 2) as (acknowledged, errors):
                time.sleep(0.3)
                first.kill()
                with psycopg.connect(second.url, autocommit=True) as db:
                    db.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                    db.execute("SELECT pg_promote()")
            wait_until_up(ledger)
            assert acknowledged
            assert all(isinstance(error, LedgerUnavailableError) for error in errors)
            check(ledger, acknowledged)
            ledger.settle(ledger.reserve("0.1").id, "0.1")


@contextmanager
def pgbouncer(server, folder):
    """PgBouncer in transaction mode before a server; yields its URL."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None and os.environ.get("CI", "").lower() == "true":
        pytest.fail("no pgbouncer: CI installs the distribution's")
    if program is None:
        pytest.skip("needs the distribution's pgbouncer")
    port = free_port()
    folder.chmod(0o755)
    place = server.folder / "pgbouncer.ini"
    place.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={server.port} user=postgres\n"
        "[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nunix_socket_dir =\n"
    )
    command = [program, str(place)]
    process = subprocess.Popen(command, user=server.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        for _ in range(500):
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.02)
        yield url
    finally:
        process.kill()
        process.wait()


def test_pgbouncer_in_transaction_mode_changes_nothing(server, tmp_path):
    with pgbouncer(server, tmp_path) as url, Ledger.open(url) as ledger:
        ledger.set_budget(Budget("global", NanoUSD(5 * BOUND), "day"))
        taken = []

        def attempt():
            try:
                taken.append(ledger.reserve(BOUND, ["user:a"]).id)
            except BudgetExceededError:
                return

        threads = [threading.Thread(target=attempt) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 5
        for id_ in taken:
            ledger.settle(id_, NanoUSD(500))
        ledger.set_budget(Budget("user:*", NanoUSD(2600), "day"))  # counts what is there, in a transaction of its own
        with pytest.raises(BudgetExceededError):
            ledger.reserve(NanoUSD(200), ["user:a"])
        check(ledger)


def test_a_limit_on_statements_leaves_nothing_half_written(server):
    with Ledger.open(server.url) as ledger:
        held = ledger.reserve("0.1", ["user:a"])
        with psycopg.connect(server.url, autocommit=True) as db, db.transaction():
            db.execute("SELECT 1 FROM llm_cost.reservation FOR UPDATE")  # a settle has to wait for this
            other = psycopg.connect(server.url, autocommit=True)
            other.execute("ALTER ROLE postgres SET statement_timeout = '50ms'")
            other.close()
            with Ledger.open(server.url) as limited, pytest.raises(LedgerUnavailableError, match="statement timeout"):
                limited.settle(held.id, "0.05")
        assert [row.kind for row in ledger.rows()] == ["reserve"]
        assert ledger.settle(held.id, "0.05").repeated is False
        check(ledger)


def test_a_hold_that_waits_over_the_end_of_its_window_takes_nothing_that_was_carried_on(server):
    refused = []

    def reserve(ledger):
        try:
            ledger.reserve(BOUND, ["user:x"])
        except BudgetExceededError as error:
            refused.append(error)

    with closing(Ledger.open(server.url)) as ledger, psycopg.connect(server.url, autocommit=True) as db:
        db.execute("CREATE TABLE llm_cost.at AS SELECT 500000 AS hour, 0 AS ms")
        db.execute(
            "CREATE OR REPLACE FUNCTION llm_cost.moment(given bigint) RETURNS bigint LANGUAGE sql AS"
            " 'SELECT coalesce(given, hour * 3600000::bigint + ms) FROM llm_cost.at'"
        )
        ledger.set_budget(Budget("global", BOUND, "hour", carry_over=True))
        db.execute("UPDATE llm_cost.at SET hour = 500001, ms = 3599999")
        ledger.void(ledger.reserve(BOUND, ["user:y"]).id)
        with psycopg.connect(server.url) as other:  # whoever makes the account of user:x has to wait for this
            name = encoding.account_name("user:x", LIFETIME)
            other.execute("INSERT INTO llm_cost.account (tenant, name) SELECT id, %s FROM llm_cost.tenant", (name,))
            waiting = threading.Thread(target=reserve, args=(ledger,))
            waiting.start()
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while db.execute(blocked).fetchone() == (0,):
                time.sleep(0.01)
            db.execute("UPDATE llm_cost.at SET hour = 500002, ms = 1")
            ledger.reserve(NanoUSD(2 * BOUND), ["user:y"])
            other.rollback()
        waiting.join()
        assert len(refused) == 1
        assert sum(int(row.amount_nanousd) for row in ledger.rows() if row.kind == "reserve") == 3 * BOUND  # one void


def test_two_that_find_an_empty_database_prepare_it_once(postgres_url):
    with multiprocessing.get_context("fork").Pool(6) as pool:
        pool.map(_book, [(postgres_url, number) for number in range(6)])
        pool.close()
        pool.join()
    with Ledger.open(postgres_url) as ledger:
        assert ledger.balance("global").settled_nanousd == 6 * BOUND


def _book(task):
    url, number = task
    with Ledger.open(url) as ledger:
        ledger.book(BOUND, id=f"b{number}")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_work_keeps_both_sides_right(postgres_url):
    with Ledger.open(postgres_url) as ledger:
        with working(ledger) as (acknowledged, errors):
            children = [multiprocessing.get_context("fork").Process(target=_child, args=(ledger,)) for _ in range(4)]
            for child in children:
                child.start()
            for child in children:
                child.join(timeout=300)
        assert [child.exitcode for child in children] == [0] * 4
        assert not errors
        assert ledger.balance("user:child").settled_nanousd == 4 * 10 * BOUND
        check(ledger, acknowledged)


def _child(ledger):
    for _ in range(10):
        ledger.settle(ledger.reserve(BOUND, ["user:child"]).id, BOUND)


def test_a_cancelled_task_leaves_the_connection_of_others_alone(postgres_url):
    async def main():
        async with AsyncLedger.open(postgres_url) as ledger:
            for _ in range(20):
                tasks = [asyncio.create_task(ledger.reserve(BOUND, ["user:a"])) for _ in range(6)]
                await asyncio.sleep(0.002)
                tasks[0].cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert sum(isinstance(one, BaseException) for one in done) <= 1
                for held in done[1:]:
                    await ledger.settle(held.id, BOUND)

    asyncio.run(main())
    with Ledger.open(postgres_url) as ledger:
        check(ledger)


def _end_all(url):
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llm-cost-middleware'"
        )


def test_a_server_that_ended_all_connections_costs_one_try_and_not_one_for_each(server):
    with Ledger.open(server.url) as ledger:
        with ExitStack() as stack:
            for _ in range(connections.CONNECTIONS):
                stack.enter_context(ledger.backend._connections.one())
        _end_all(server.url)
        assert ledger.reserve(BOUND, ["user:a"])
        assert len(ledger.backend._connections._idle) == 1
        check(ledger)


async def test_so_on_an_event_loop(server):
    async with AsyncLedger.open(server.url) as ledger:
        async with AsyncExitStack() as stack:
            for _ in range(connections.CONNECTIONS):
                await stack.enter_async_context(ledger.backend._connections.one())
        _end_all(server.url)
        assert await ledger.reserve(BOUND, ["user:a"])
        assert len(ledger.backend._connections._idle) == 1


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_an_isolation_in_which_two_would_take_the_same_money_is_refused(server, isolation):
    with psycopg.connect(server.url, autocommit=True) as db, Ledger.open(server.url) as ledger:
        ledger.set_budget(Budget("user:a", BOUND))
        db.execute(f"ALTER ROLE postgres SET default_transaction_isolation = '{isolation}'")
        with pytest.raises(ConfigurationError, match="read committed"):
            Ledger.open(server.url)
        ledger.backend._connections.close()  # a session that begins later has it, too
        with pytest.raises(LedgerUnavailableError, match="read committed"):
            ledger.reserve(BOUND, ["user:a"])


def test_passwords_and_versions_are_checked(server, postgres_url):
    for url in (
        f"postgresql://postgres:very-secret@127.0.0.1:{server.port}/nothing",
        "postgresql://u:very-secret@127.0.0.1:1/x",
    ):
        with pytest.raises(LedgerUnavailableError) as caught:
            Ledger.open(url)
        assert "very-secret" not in str(caught.value) + repr(caught.value.__cause__)
    with pytest.raises(ConfigurationError) as unread:
        Ledger.open("postgresql://u:very-secret[@host/x?what=1")
    assert "very-secret" not in str(unread.value)
    Ledger.open(postgres_url).close()
    with closing(psycopg.connect(postgres_url, autocommit=True)) as db:
        db.execute("UPDATE llm_cost.schema_version SET version = 99")
    with pytest.raises(LedgerVersionError):
        Ledger.open(postgres_url)


def test_rows_cannot_be_changed_and_lost_tables_are_no_unlimited_budget(postgres_url):
    with Ledger.open(postgres_url) as ledger, psycopg.connect(postgres_url, autocommit=True) as db:
        ledger.set_budget(Budget("global", "1"))
        ledger.book("0.1")
        for text in ("UPDATE llm_cost.entry SET amount = 0", "DELETE FROM llm_cost.entry", "TRUNCATE llm_cost.entry"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                db.execute(text)
        db.execute("DROP SCHEMA llm_cost CASCADE")
        with pytest.raises(LedgerUnavailableError):
            ledger.reserve("0.1")
