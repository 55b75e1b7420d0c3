"""Every route of LiteLLM's proxy, by every kind of name: what leaves for a provider has a row, or does not leave.

The routes are those of the proxy's own OpenAPI document; a tag that ``proxy_surface`` does not know fails the test.
Requests are counted where they end: at the simulator, and, of other providers, at an HTTP proxy on loopback.
"""

from __future__ import annotations

import httpx
import pytest
from proxy_surface import FREE, body_for, routes_of, routes_without_provider, url_of
from proxy_watch import NAMES

GOVERNED = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/queue/chat/completions",
            "/v1beta/models/{model_name}:generateContent", "/v1/completions", "/v1/embeddings")  # fmt: skip
"""Asked by every kind of name, in the short form, too."""


def wrong(watched, method, path, model, **more):
    """What is wrong with one request; ``None`` where nothing is."""
    status, sent, opened = watched.ask(method, path, model, **more)
    if not sent or FREE.search(f"{method} {path}"):
        return None
    if not opened:
        return f"{method} {path} {model!r}: HTTP {status}, {sent} sent, no row"
    if watched.mode == "deny" and any(row.kind != "reserve" for row in opened):
        return f"{method} {path} {model!r}: HTTP {status}, {sent} sent without a reservation"
    return None


def test_every_route_is_known_and_sends_nothing_without_a_row(watched, request):
    routes, unknown = routes_of(watched.http.get("/openapi.json").json())
    assert unknown == set(), "look at them, and add them to proxy_surface"
    assert len(routes) > 150
    names = list(NAMES.values())
    every = request.config.getoption("--soak")
    if watched.mode == "deny" and not every:  # with "warn" each is asked; what sends at all is mostly a POST
        routes = [(method, path) for method, path in routes if method == "post"]
    # each route by one name, in turn; the long form asks each by all
    asked = [
        (method, path, name)
        for index, (method, path) in enumerate(routes)
        for name in (names if every else [names[index % len(names)]])
    ]
    begun = watched.sent
    assert [found for one in asked if (found := wrong(watched, *one)) is not None] == []
    assert watched.sent - begun > (20 if watched.mode == "warn" else 5)


@pytest.mark.parametrize("path", GOVERNED)
def test_every_kind_of_name_is_held_noted_or_refused(path, watched):
    begun = watched.sent
    found = [wrong(watched, "post", path, name) for name in NAMES.values()]
    if "generate" not in path and "completions" in path:
        found += [wrong(watched, "post", path, name, stream=True) for name in ("gpt-5-mini", "dep-1")]
        found.append(wrong(watched, "post", path, "gpt-5-mini,gpt-5.1", fastest_response=True))
    assert [one for one in found if one is not None] == []
    if watched.mode == "warn":
        assert watched.sent > begun
    watched.proxy.spent()  # waits until nothing is pending


@pytest.mark.parametrize("watched", ["warn"], indirect=True)  # the mode in which anything may leave
def test_what_is_left_out_reaches_no_provider(watched):
    left_out = routes_without_provider(watched.http.get("/openapi.json").json())
    assert len(left_out) > 50
    begun = watched.sim.request_count
    for method, path in left_out:
        watched.ask(method, path, "gpt-5-mini")
        assert watched.sim.request_count == begun, (method, path)


def test_nothing_of_it_is_left_pending(watched):
    spent, bill = watched.proxy.spent(), watched.sim.bill.total_nanousd
    assert bill > 0
    # with "warn", what was let pass may have no price, and says so in its row
    assert spent >= bill or watched.mode == "warn"


def test_no_name_leads_past_an_empty_budget(watched):
    billed = watched.sim.bill.total_nanousd
    with httpx.Client(base_url=watched.proxy.url, timeout=120, trust_env=False) as http:
        for path in GOVERNED[:5]:
            for name in NAMES.values():
                body = body_for(path, name)
                answer = http.post(url_of(path, name), json=body, headers={"authorization": "Bearer sk-poor"})
                assert watched.sim.bill.total_nanousd == billed, (path, name, answer.text)
    assert watched.proxy.spent("user:poor") == 0
