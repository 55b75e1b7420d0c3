"""A write-ahead log torn at any offset: the ledger opens at a committed prefix, never at half a transaction."""

from __future__ import annotations

import random
import shutil

import pytest

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A ledger whose transactions are all in its log, as after a crash, and its rows."""
    folder = tmp_path_factory.mktemp("torn")
    ledger = Ledger.open(f"sqlite:///{folder}/live.db")
    ledger.set_budget(Budget("user:*", "1", "day"))
    for number in range(40):
        id_ = ledger.reserve(NanoUSD(100 + number), [f"user:{number % 3}"], memo=b"x" * 300).id
        if number % 5:
            ledger.settle(id_, NanoUSD(90 + number))
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"live.db{suffix}", folder / f"crashed.db{suffix}")
    rows = list(ledger.rows())
    ledger.close()
    return folder / "crashed.db", rows


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(1000 if metafunc.config.getoption("--soak", default=False) else 40))


def test_a_torn_log_opens_at_a_committed_prefix(tmp_path, written, seed):
    crashed, rows = written
    chance = random.Random(seed)
    log = bytearray(crashed.with_name("crashed.db-wal").read_bytes())
    offset = chance.randrange(len(log))
    match seed % 3:
        case 0:
            del log[offset:]
        case 1:
            log[offset:] = bytes(len(log) - offset)
        case _:
            log[offset:] = chance.randbytes(len(log) - offset)
    shutil.copy(crashed, tmp_path / "ledger.db")
    (tmp_path / "ledger.db-wal").write_bytes(log)

    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        found = list(ledger.rows())
        assert found == rows[: len(found)], "not a prefix"
        audit(ledger._backend.read(None), found)
        ledger.settle(ledger.reserve("0.1", ["user:new"]).id, "0.05")
        audit(ledger._backend.read(None), list(ledger.rows()))
