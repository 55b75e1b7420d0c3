"""Memos and lines of a SQLite ledger are stored packed, and read as they were written, by every process."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from random import Random

import pytest

from llm_cost_middleware.budget.backends.sqlite import packing
from llm_cost_middleware.budget.backends.sqlite.packing import _PREFIX, Packing
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.errors import LedgerError


def memo(number):
    return json.dumps({"v": 1, "call": f"c{number:x}", "at": ["anthropic", "claude-haiku-4-5"], "n": number}).encode()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/l.db"


def fill(ledger, memos):
    for number, text in enumerate(memos):
        ledger.settle(ledger.reserve("0.01", memo=text, id=f"{os.urandom(4).hex()}{number}").id, "0.01", memo=text)


def stored(tmp_path):
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        return [blob for (blob,) in db.execute("SELECT memo FROM entry ORDER BY seq")]


def test_memos_come_back_as_they_were_and_take_a_fraction_of_the_room(url, tmp_path):
    memos = [memo(number) for number in range(100)]
    with Ledger.open(url) as ledger:
        fill(ledger, memos)
        assert [row.memo for row in ledger.rows()] == [text for text in memos for _ in range(2)]
    kept = stored(tmp_path)
    assert sum(map(len, kept[100:])) < 0.4 * sum(map(len, memos[50:])) * 2
    with Ledger.open(url) as again:  # another process
        assert [row.memo for row in again.rows()] == [text for text in memos for _ in range(2)]


def test_blobs_of_any_bytes_come_back(url):
    rng = Random(5)
    blobs = [b"", _PREFIX, _PREFIX + b"\x00", _PREFIX + b"\x01rest", b"\x00", *(memo(n) for n in range(40))]
    blobs += [rng.randbytes(rng.randrange(200)) for _ in range(60)] + [_PREFIX + rng.randbytes(n) for n in range(60)]
    for order in (blobs, blobs[::-1]):
        with Ledger.open(url) as ledger:
            before = sum(1 for _ in ledger.rows())
            fill(ledger, order)
            assert [row.memo for row in ledger.rows()][before::2] == order


def test_a_file_that_holds_what_looks_packed_is_never_packed(url, tmp_path):
    """Memos are opaque: one that begins like a packed one may have been written before there was any packing."""
    odd = _PREFIX + b"\x01 by somebody else"
    with Ledger.open(url) as ledger:
        fill(ledger, [odd, *(memo(number) for number in range(60))])
        assert next(row.memo for row in ledger.rows()) == odd
    assert stored(tmp_path)[-1] == memo(59)
    with Ledger.open(url) as ledger:
        fill(ledger, [odd])
        assert [row.memo for row in ledger.rows()][-1] == odd


def test_two_processes_that_pack_at_once_read_each_other(url):
    with Ledger.open(url) as one:
        other = Ledger.open(url)
        other._backend._packing = other._backend.journal._packing = Packing(other._backend._file)  # of its own
        for number in range(60):
            fill(one if number % 2 else other, [memo(number)])
        for ledger in (one, other):
            assert [row.memo for row in ledger.rows()][::2] == [memo(number) for number in range(60)]
        other.close()


def test_texts_that_have_changed_get_a_dictionary_of_their_own(url, monkeypatch, tmp_path):
    monkeypatch.setattr(packing, "_TRIAL", 200)
    rng = Random(1)
    others = [json.dumps({"word": rng.choice("abcd") * 9, "list": list(range(40))}).encode() for _ in range(300)]
    with Ledger.open(url) as ledger:
        fill(ledger, [memo(number) for number in range(20)])
        fill(ledger, others)
        assert [row.memo for row in ledger.rows()][40::2] == others
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        assert db.execute("SELECT count(*) FROM dictionary").fetchone()[0] >= 2
    assert len(stored(tmp_path)[-1]) < 40


def test_a_row_whose_dictionary_is_gone_is_a_clear_error(url, tmp_path):
    with Ledger.open(url) as ledger:
        fill(ledger, [memo(number) for number in range(40)])
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        db.execute("UPDATE dictionary SET id = 9")
        db.commit()
    with Ledger.open(url) as ledger, pytest.raises(LedgerError, match="dictionary 1, which is gone"):
        list(ledger.rows())
