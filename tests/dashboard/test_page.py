"""The page as one file, and what it is made of: nothing of another host, no name as markup, every file in the wheel."""

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser

import pytest
from dashboard_ledgers import HOSTILE, fill

from llm_cost_middleware import Ledger
from llm_cost_middleware.dashboard import Source, View, standalone
from llm_cost_middleware.dashboard.page import ASSETS, asset, served
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports import Query, make_report


@pytest.fixture(scope="module")
def written(ledgers):
    """The file of a ledger by its name."""

    def text(name, **given):
        with Ledger.open(ledgers(name)) as ledger:
            return standalone(Source(ledger, Catalogue(), now=time.time, timezone="UTC").document(given))

    return text


class Tags(HTMLParser):
    """The elements of a page with their attributes, and the texts of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self._in = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self.texts.append([tag, dict(attrs), ""])
            self._in = tag

    def handle_endtag(self, tag):
        self._in = None if tag == self._in else self._in

    def handle_data(self, data):
        if self._in:
            self.texts[-1][2] += data


def test_a_file_asks_nothing_of_any_host(written):
    tags = Tags(written("day"))
    assert not [
        tag for tag, given in tags.found if {"src", "href", "action"} & given.keys() and tag not in {"a", "link"}
    ]
    assert {given["href"] for tag, given in tags.found if tag == "link"} == {"data:,"}
    assert {tag for tag, _ in tags.found} & {"iframe", "img", "object", "embed", "base", "frame"} == set()
    assert not re.findall(rb"url\(|@import", b"".join(asset(path) for path in ASSETS if path.endswith(".css")))


def test_its_policy_admits_its_own_scripts_and_styles_alone(written):
    tags = Tags(written("day"))
    (policy,) = [given["content"] for tag, given in tags.found if given.get("http-equiv") == "Content-Security-Policy"]
    assert "unsafe" not in policy
    for tag, given, text in tags.texts:
        if given.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy.partition(f"{tag}-src")[2].partition(";")[0], tag


def test_no_name_leaves_the_document_of_a_file(written):
    text = written("hostile")
    plain = Tags(written("empty"))
    tags = Tags(text)
    assert [tag for tag, _ in tags.found] == [tag for tag, _ in plain.found]
    (block,) = [data for _, given, data in tags.texts if given.get("type") == "application/json"]
    assert not re.search(r"[<>&]", block)
    told = json.loads(block)
    names = {row["name"] for row in told["spending"]["dimensions"]["team"]["top"]}
    assert names <= {*HOSTILE, None} | {name for name in names if "%" in name}
    assert len(names) >= 8


def test_the_served_page_has_no_script_of_its_own():
    assert [given for tag, given in Tags(served().decode()).found if tag == "script" and "src" not in given] == []
    assert b"style=" not in served()
    assert not re.search(rb"\son[a-z]+=", served())


def test_scripts_make_no_markup_of_text():
    for path in ASSETS:
        if path.endswith(".js") and "uplot" not in path:
            script = asset(path).decode()
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser", script
            )


@pytest.mark.parametrize("name", ["empty", "day", "month"])
def test_figures_are_those_of_the_report(ledgers, written, name):
    told = json.loads(re.search(r'id="document">(.*?)</script>', written(name, since=["all"]))[1])["spending"]
    with Ledger.open(ledgers(name)) as ledger:
        for dimension, found in told["dimensions"].items():
            report = make_report(ledger, Query.read(dimension, now=time.time), catalogue=Catalogue())
            assert told["total"]["cost_usd"] == f"{report.total.cost_usd:f}"
            rows = {row.keys[0]: f"{row.cost_usd:f}" for row in report}
            assert {row["name"]: row["cost_usd"] for row in found["top"]}.items() <= rows.items()
            assert found["names"] == len(rows)


@pytest.mark.parametrize(
    ("given", "over", "bars"),
    [
        ({}, "day", 7), ({"until": ["2026-11-20"]}, "day", 30), ({"during": ["yesterday"]}, "hour", 24),
        ({"since": ["7d"]}, "day", 8),
        ({"during": ["2026-03-29"], "timezone": ["Europe/Vienna"], "over": ["hour"]}, "hour", 23),
        ({"during": ["2025"]}, "week", 53), ({"since": ["2023-01-01"]}, "month", 47), ({"since": ["all"]}, "day", 7),
        ({"since": ["2026-11-20"], "until": ["2026-11-21"]}, "hour", 24),
    ],
)  # fmt: skip
def test_bars_are_as_long_as_can_be_seen(given, over, bars):
    now = 1_795_730_400.0  # 2026-11-26 22:00 UTC
    view = View.read(given, now=now, first=lambda: now - 6 * 86_400, timezone="UTC")
    assert (view.asked.over, len(view.stretches())) == (over, bars)


def test_a_ledger_of_a_day_fills_the_page_with_hours():
    now = 1_795_730_400.0  # 22:00
    view = View.read({}, now=now, first=lambda: now - 8 * 3_600, timezone="UTC")
    assert (view.asked.over, len(view.stretches())) == ("hour", 22)
    assert len(View.read({}, now=now, first=lambda: None, timezone="UTC").stretches()) == 30


def test_a_ledger_without_sql_tells_the_same(tmp_path):
    now = time.time()
    told = []
    for url in (f"sqlite:///{tmp_path / 'ledger.db'}", "memory://same"):
        with Ledger.open(url) as kept:  # a memory ledger ends with its last user
            fill(url, now, days=3, calls=120)
            told.append(
                Source(kept, Catalogue(), now=lambda: now, timezone="UTC").document({"where": ["team=search-*"]})
            )
    assert told[0] == told[1]
    assert told[0]["spending"]["total"]["calls"] > 30
    assert all(told[0]["calls"][name] for name in ("dear", "slow"))
    assert told[0]["calls"]["dear"][0]["why"].endswith("not openai/gpt-5 (dearer).")
