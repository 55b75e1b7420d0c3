"""The page over HTTP: who is let in, what is refused, and that nothing is written."""

import json
import re
import socket
import sqlite3
import threading
from urllib.parse import quote, urlsplit

import pytest
from dashboard_server import ask, serving

from llm_cost_middleware.dashboard.page import ASSETS
from llm_cost_middleware.dashboard.server import is_loopback
from llm_cost_middleware.errors import ConfigurationError

METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "X")


@pytest.fixture(scope="module")
def server(ledgers):
    with serving(ledgers("day")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(ledgers):
    with serving(ledgers("day"), token="t0ken/with+odd=chars;x") as running:
        yield running


def test_a_thread_that_cannot_be_started_takes_no_room(server, monkeypatch):
    def none_left(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        for _ in range(70):
            with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as link:
                assert link.recv(1) == b""
    assert ask(server)[0] == 200


def test_the_page_its_files_and_its_answers_are_served(server):
    for path in ("/", *ASSETS, "/data/spending", "/data/gauges", "/data/calls", "/data/list"):
        status, headers, text = ask(server, path)
        assert status == 200, path
        assert text
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Python" not in headers["Server"]


def test_the_answer_adds_up(server):
    told = json.loads(ask(server, "/data/spending?by=team&since=30d&over=day")[2])
    whole = float(told["total"]["cost_usd"])
    assert whole > 0
    stack = told["dimensions"]["team"]
    bars = sum(sum(layer["usd"]) for layer in (*stack["stack"], *([stack["rest"]] if stack["rest"] else ())))
    assert bars == pytest.approx(whole)
    assert len(told["stretches"]) == len(stack["stack"][0]["usd"]) == 31


@pytest.mark.parametrize("by", ["model", "team", "user", "site", "tag", "project"])
def test_a_list_is_that_of_the_bars(server, by):
    whole, alone = (
        json.loads(ask(server, f"/data/{part}?by={by}")[2])["dimensions"][by] for part in ("spending", "list")
    )
    names = "name", "cost_usd", "calls", "refused_calls"
    assert [[row[name] for name in names] for row in alone["top"]] == [
        [row[name] for name in names] for row in whole["top"]
    ]
    assert alone["names"] == whole["names"]
    assert alone["savers"] == (whole["savers"] if by in {"model", "site"} else [])


@pytest.mark.parametrize("method", METHODS)
def test_it_only_reads(server, method):
    status, headers, _ = ask(server, "/", method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_head_has_no_body(server):
    status, headers, text = ask(server, "/", method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 0


def test_nothing_changes_in_the_ledger(ledgers, server):
    def state():
        db = sqlite3.connect(f"file:{ledgers('day')}?mode=ro", uri=True)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in tables if name != "sqlite_sequence"}  # noqa: S608
        db.close()
        return rows

    before = state()
    for path in ("/", "/data/spending?by=user&since=all", "/data/gauges", "/data/calls?only=team%3Dsearch-core"):
        assert ask(server, path)[0] == 200
    assert state() == before


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/assets/../server.py", "/assets/%2e%2e/server.py", "/assets/", "/data/", "/data/x",
        "/page.html", "/assets/page.css/", "//data/spending/..", "/data/spending/", "/%00", "/data/__class__",
        "/favicon.ico",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(server, path):
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("by=teams", "team"), ("by=team,user", "one dimension"), ("over=minute", "hour"), ("since=soon", "since"),
        ("nonsense=1", "nonsense"), ("by=team&by=user", "twice"), ("where=team", "team"),
        ("timezone=Mars/Olympus", "timezone"), ("only=x", "only"), ("only=Team%3Da", "dimension"),
        ("since=2020-01-01&over=hour", "bars"), ("since=today&until=yesterday", "until"), ("since=9999-12-31", "since"),
        ("until=0001-01-01", "1970"), ("during=%00", None), ("&".join(f"where=team%3D{n}" for n in range(90)), "many"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_told(server, query, said):
    status, _, text = ask(server, f"/data/spending?{query}")
    told = json.loads(text)
    if said is None:
        assert status in {200, 400}
        return
    assert status == 400
    assert said in told["error"]
    assert "Traceback" not in text


def test_an_address_has_an_end(server):
    assert ask(server, "/?where=" + "x" * 5_000)[0] == 414
    assert ask(server, "/" + "x" * 70_000)[0] == 414


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:1", 200), ("LOCALHOST", 200), ("[::1]:8477", 200), ("127.8.9.10", 200),
        ("evil.test", 421), ("127.0.0.1.evil.test", 421), ("localhost.evil.test:80", 421), ("", 421),
        ("evil.test#127.0.0.1", 421), ("127.0.0.1@evil.test", 421), ("[::1].evil.test", 421), ("10.0.0.1", 421),
    ],
)  # fmt: skip
def test_a_foreign_name_for_this_machine_is_refused(server, host, status):
    assert ask(server, "/data/gauges", host=host)[0] == status


def test_another_site_gets_no_answer(server):
    for site in ("cross-site", "same-site", "anything"):
        assert ask(server, "/data/gauges", Sec_Fetch_Site=site)[0] == 403
    assert ask(server, "/data/gauges", Sec_Fetch_Site="same-origin")[0] == 200


def test_without_the_token_nothing_is_told(guarded):
    for path in ("/", "/assets/page.js", "/data/gauges", "/nothing"):
        assert ask(guarded, path)[0] == 401
        for wrong in ("", "t0ken", "t0ken/with+odd=chars;xx", "\u00e9" * 4, "%00"):
            assert ask(guarded, f"{path}?token={quote(wrong)}")[0] == 403
            assert ask(guarded, path, Authorization=f"Bearer {quote(wrong)}")[0] == 401
            assert ask(guarded, path, Cookie=f"llm_cost_token={quote(wrong)}")[0] == 401


def test_the_token_moves_from_the_address_into_a_cookie(guarded):
    path = guarded.url.partition(str(guarded.server_port))[2]
    status, headers, _ = ask(guarded, f"{path}&by=team&where=team%3Da%26b")
    assert status == 303
    assert headers["Location"] == "/?by=team&where=team%3Da%26b"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    kept = cookie.partition(";")[0]
    assert ask(guarded, "/data/gauges", Cookie=kept)[0] == 200
    assert ask(guarded, "/data/gauges", Cookie=f"other=1; {kept}")[0] == 200
    assert ask(guarded, "/data/gauges", Authorization=f"Bearer {guarded.token}")[0] == 200


def test_a_token_in_the_address_leads_to_no_other_host(guarded):
    for path in ("//evil.test/", "/\\evil.test", "http://evil.test/"):
        status, headers, _ = ask(guarded, f"{path}?token={quote(guarded.token, safe='')}")
        assert status == 303
        assert not urlsplit(headers["Location"]).netloc
        assert re.match(r"/(?![/\\])", headers["Location"])


def test_away_from_loopback_a_token_is_made(ledgers):
    with serving(ledgers("day"), host="0.0.0.0") as running:  # noqa: S104 - what it is about
        assert len(running.token) >= 32
        assert ask(running, "/data/gauges")[0] == 401
        assert ask(running, "/data/gauges", host="any.test", Authorization=f"Bearer {running.token}")[0] == 200


def test_only_addresses_of_this_machine_are_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.test", "", "localhost.evil.test")))  # noqa: S104


def test_a_short_token_and_a_taken_port_are_refused(ledgers, server):
    with pytest.raises(ConfigurationError, match="16"), serving(ledgers("day"), token="short"):
        pass
    with pytest.raises(ConfigurationError, match="listen"), serving(ledgers("day"), port=server.server_port):
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET //[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.test\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01\x00",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request_gets_no_page(server, raw):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as wire:
        wire.sendall(raw)
        wire.shutdown(socket.SHUT_WR)
        told = b""
        while block := wire.recv(65_536):
            told += block
    assert b"<html" not in told
    assert b" 200 " not in told[:20]
    assert ask(server, "/data/gauges")[0] == 200


def test_a_crowd_does_not_take_it_down(server):
    crowd = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(80)]  # who say nothing
    for wire in crowd:
        wire.close()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(server, "/data/calls")[0])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 12


def test_a_ledger_that_goes_away_is_told(tmp_path, ledgers):
    gone = tmp_path / "gone.db"
    gone.write_bytes(ledgers("empty").read_bytes())
    with serving(gone) as running:
        assert ask(running, "/data/gauges")[0] == 200
        gone.unlink()
        running.source._kept.clear()
        for part in ("gauges", "spending", "calls"):
            status, _, text = ask(running, f"/data/{part}")
            assert status == 503, text
            assert "ledger" in json.loads(text)["error"]
        assert ask(running, "/")[0] == 200
