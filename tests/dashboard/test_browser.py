"""The page in a real browser: drawn in time, for every reader, at every width, whatever names it is given."""

import json
import time

import pytest
from dashboard_ledgers import HOSTILE
from dashboard_server import serving

from llm_cost_middleware import Ledger
from llm_cost_middleware.dashboard import Source, standalone
from llm_cost_middleware.pricing.catalogue import Catalogue

SERIOUS = {"serious", "critical"}
PAINT_MS = 1_500
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]"
LOOKS = [(1200, False), (1200, True), (800, False), (800, True), (390, False), (390, True)]


def faults(page, axe):
    """What axe-core finds that is serious, with every table and list open."""
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; }); 1")
    page.run(axe + "\n;1")
    told = page.run(
        "axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify(found.violations))"
    )
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in json.loads(told) if one["impact"] in SERIOUS]


@pytest.mark.parametrize("name", ["empty", "day", "month"])
def test_it_is_drawn_in_time_and_for_every_reader(page, axe, ledgers, name):
    paints = []
    with serving(ledgers(name)) as server:
        for width, dark in LOOKS if name == "month" else LOOKS[1:5:3]:
            page.look(width, dark=dark)
            page.open(server.url)
            page.wait(PAINTED)
            paints.append(page.run(f"{PAINTED}.startTime"))
            assert page.run("document.documentElement.scrollWidth") <= width
            busy = page.run("[...document.querySelectorAll('section')].map((one) => one.ariaBusy)")
            assert busy == ["false"] * 9
            if (width, dark) in {(1200, dark), (390, True)}:
                assert faults(page, axe) == []
            assert page.complaints() == []
            hosts = {url.split("/")[2] for url in page.asked() if not url.startswith("data:")}
            assert hosts == {f"127.0.0.1:{server.server_port}"}
    assert min(paints) <= PAINT_MS  # the least: other tests run beside this one


@pytest.mark.parametrize("name", ["empty", "month", "hostile"])
def test_a_file_draws_itself_and_asks_for_nothing(page, axe, ledgers, tmp_path, name):
    with Ledger.open(ledgers(name)) as ledger:
        document = Source(ledger, Catalogue(), now=time.time).document({"since": ["all"]})
    file = tmp_path / "page.html"
    file.write_text(standalone(document))
    page.look(390, dark=True)
    page.open(file.as_uri())
    assert faults(page, axe) == []
    assert page.complaints() == []
    assert [url for url in page.asked() if not url.startswith(("data:", "file:"))] == []
    assert page.run("typeof window.pwned") == "undefined"
    if name == "month":
        page.run("[...document.querySelectorAll('#choice button')].find((one) => one.textContent === 'team').click()")
        assert page.run("location.hash") == "#by=team"
        assert "search-core" in page.run("document.querySelector('.legend').textContent")
        page.call("Page.reload")
        page.wait("document.querySelector('#choice [aria-pressed=true]')?.textContent === 'team'")


MARKUP = "script:not([src]), img, svg, iframe, base, meta[http-equiv=refresh]"
HANDLERS = (
    "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames()).filter((one) => /^on/.test(one))"
)


def test_hostile_names_do_nothing(page, ledgers):
    with serving(ledgers("hostile")) as server:
        for by in ("team", "model", "end_user", "project", "tag"):
            page.open(f"{server.url}?since=all&by={by}")
            page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; }); 1")
            page.run("document.querySelector('.chart').focus()")
            for _ in range(3):
                page.press("ArrowLeft")
            page.wait("document.querySelectorAll('details tbody tr').length > 0")
            assert page.run("typeof window.pwned") == "undefined"
            assert page.run(f"document.querySelectorAll({json.dumps(MARKUP)}).length") == 0
            assert page.run(HANDLERS) == []
            assert page.run("document.documentElement.scrollWidth") <= 1200
            assert page.complaints() == []
            assert [url for url in page.asked() if not url.startswith(("data:", server.url))] == []
        told = page.run("document.body.textContent")
        assert sum(name in told for name in HOSTILE) >= 12  # they are shown, as they are


FIRST_LIST = "document.querySelectorAll('#tops .body > div:first-child tbody th')"


def test_every_hostile_name_can_be_chosen(page, ledgers):
    """A link in a list narrows the page to exactly this name."""
    with serving(ledgers("hostile")) as server:
        page.open(f"{server.url}?since=all&by=team")
        links = page.run("[...document.querySelectorAll('#tops a')].map((one) => [one.getAttribute('href'), one.text])")
        assert len(links) >= 30
        for href, name in links[:10]:
            page.open(f"{server.url}{href}")
            shown = page.run(
                "[...document.querySelectorAll('#tops .body > div:first-child tbody th')].map((one) => one.textContent)"
            )
            assert shown == [name]


def test_filters_live_in_the_address(page, ledgers):
    with serving(ledgers("month")) as server:
        page.open(f"{server.url}?by=team&where=team%3Dsearch-*&since=7d")
        assert page.run("document.querySelector('#choice [aria-pressed=true]').textContent") == "team"
        assert page.run("document.querySelector('.presets [aria-current]').textContent") == "7 days"
        assert "search-" in page.run("document.querySelector('.legend').textContent")
        assert "ads-" not in page.run("document.querySelector('.legend').textContent")
        narrow = page.run("document.querySelector('#figures .value').textContent")
        page.run("document.querySelector('#chips button').click()")
        page.wait("!location.search.includes('where')")
        page.wait(f"document.querySelector('#figures .value').textContent !== {json.dumps(narrow)}")
        page.run("history.back()")
        page.wait(f"document.querySelector('#figures .value').textContent === {json.dumps(narrow)}")
        page.run("document.getElementById('filters').elements.where.value = 'site=chat.*, team!=search-core'; 1")
        page.run("document.getElementById('filters').requestSubmit()")
        page.wait("location.search.includes('team%21%3Dsearch-core')")
        where = page.run("new URLSearchParams(location.search).getAll('where')")
        assert where == ["team=search-*", "site=chat.*", "team!=search-core"]
        page.open(f"{server.url}?by=nonsenses&over=minute")
        assert page.run("document.querySelector('#trouble').getAttribute('role')") == "alert"
        assert "minute" in page.run("document.querySelector('#trouble').textContent")


def test_the_keyboard_reaches_everything(page, ledgers):
    with serving(ledgers("day")) as server:
        page.open(f"{server.url}?during=today")
        page.open(f"{server.url}?since=2d")
        page.press("Tab")
        assert page.run("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(80):
            page.press("Tab")
            reached.add(
                page.run(
                    "(document.activeElement.closest('section, form')?.id ?? '') + ' ' + document.activeElement.tagName"
                )
            )
        assert {
            "filters INPUT",
            "filters BUTTON",
            "filters A",
            "time BUTTON",
            "time DIV",
            "time SUMMARY",
            "tops A",
        } <= reached
        page.run("document.querySelector('.chart').focus()")
        page.press("End")
        told = page.run("document.querySelector('[aria-live]').textContent")
        assert "$" in told
        page.press("ArrowLeft")
        assert page.run("document.querySelector('[aria-live]').textContent") != told
        assert page.run("document.querySelector('.tip').hidden") is False


BUTTONS = "document.querySelectorAll('#choice button')"


def test_another_dimension_is_stacked_when_it_is_asked_for(page, ledgers):
    with serving(ledgers("month")) as server:
        page.open(server.url)
        for dimension, name in (("team", "search-core"), ("site", "mail.draft"), ("model", "claude-opus-4-5")):
            page.run(f"[...{BUTTONS}].find((one) => one.textContent === {dimension!r}).click()")
            page.wait(f"document.querySelector('.legend')?.textContent.includes({name!r})")
            page.wait("document.activeElement.parentElement.id === 'choice'")
            assert page.run("document.querySelector('#choice [aria-pressed=true]').textContent") == dimension
            assert page.run("new URLSearchParams(location.search).get('by')") == dimension
        assert page.complaints() == []


def test_it_says_when_the_server_has_gone(page, ledgers):
    with serving(ledgers("day")) as server:
        page.open(server.url)
        shown = page.run("document.querySelector('#figures').textContent")
    page.run("document.getElementById('again').click()")
    page.wait("document.querySelector('#trouble').textContent.includes('does not answer')")
    assert page.run("document.querySelector('#figures').textContent") == shown


def test_a_token_opens_the_page_and_leaves_the_address(page, ledgers):
    with serving(ledgers("day"), token="a token of 16 and more") as server:
        page.open(server.url)
        assert page.run("location.search") == ""
        assert page.run("document.cookie") == ""  # no script can read it
        assert page.run("document.querySelector('#figures .value').textContent").startswith("$")
