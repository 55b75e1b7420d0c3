"""Every name by which LiteLLM reaches a deployment is held at what it reaches, or treated as ungoverned."""

from __future__ import annotations

import asyncio
import warnings

import litellm
import pytest
from router_names import MINI, NAMES, listed

from llm_cost_middleware.advice import Evidence, advise
from llm_cost_middleware.advice.calls import CallLog
from llm_cost_middleware.errors import BudgetExceededError, LedgerUnavailableError, UnsupportedRequestError

ASK = [{"role": "user", "content": "Count to forty."}]
NO_MONEY = {"budgets": [{"scope": "global", "limit": "0.0000001"}], "on_ungoverned": "deny"}
METHODS = {
    "completion": lambda router, model, more: router.completion(model, ASK, max_tokens=9, **more),
    "stream": lambda router, model, more: list(router.completion(model, ASK, max_tokens=9, stream=True, **more)),
    "acompletion": lambda router, model, more: asyncio.run(router.acompletion(model, ASK, max_tokens=9, **more)),
    "aresponses": lambda router, model, more: asyncio.run(
        router.aresponses(model=model, input="Count.", max_output_tokens=19, **more)
    ),
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_of_name_is_held(kind, make_harness):
    name, more = NAMES[kind]
    harness = make_harness(**NO_MONEY)
    router = listed(harness)
    for ask in METHODS.values():
        with pytest.raises(BudgetExceededError):
            ask(router, name, more)
    assert harness.sim.request_count == 0


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_of_name_is_served_and_booked_at_its_bill(kind, harness):
    name, more = NAMES[kind]
    router = listed(harness)
    METHODS["completion"](router, name, more)
    METHODS["acompletion"](router, name, more)
    assert harness.sim.request_count == 2
    harness.agree()


def test_a_default_fallback_is_held_as_the_group_it_leads_to(make_harness):
    harness = make_harness(**NO_MONEY)
    plain = litellm.Router([harness.deployment("mini", MINI)], num_retries=0, default_fallbacks=["mini"])
    with pytest.raises(BudgetExceededError):
        harness.router(plain).completion("nobody", ASK, max_tokens=9)
    assert harness.sim.request_count == 0


def test_a_name_that_leads_nowhere_is_refused_in_litellms_own_words(harness):
    router = listed(harness)
    for name in ("nobody", "mini,short", "ours"):
        with pytest.raises(litellm.BadRequestError, match=r"no healthy deployments"):
            router.completion(name, ASK, max_tokens=9)
    assert harness.sim.request_count == harness.settled == 0


def test_what_litellm_would_go_on_to_is_not_governed(make_harness, monkeypatch):
    harness = make_harness(on_ungoverned="deny")
    monkeypatch.setattr(litellm, "model_fallbacks", ["openai/gpt-5.1"])
    with pytest.raises(UnsupportedRequestError, match="'mini'"):
        asyncio.run(listed(harness).acompletion("mini", ASK, max_tokens=9))
    assert harness.sim.request_count == 0


def test_a_renamed_model_is_held_as_what_it_is_renamed_to(harness, monkeypatch):
    router = listed(harness)
    router.completion("mini", ASK, max_tokens=9)
    monkeypatch.setattr(litellm, "model_alias_map", {MINI: "openai/gpt-5-nano"})
    router.completion("mini", ASK, max_tokens=9)
    assert harness.sim.requests[-1].body["model"] == "gpt-5-nano"
    harness.agree()


# --- what cannot be governed has a row before it leaves ---------------------------------------------------------------


def elsewhere(harness, **own):
    params = {"model": "together_ai/x", "api_base": harness.sim.openai_url, "api_key": "k", **own}
    return harness.router([{"model_name": "other", "litellm_params": params}])


def rows(harness):
    return [(row.kind, row.status, row.amount_nanousd) for row in harness.pipeline.ledger.rows()]


@pytest.mark.parametrize("caller", ["sync", "async"])
def test_a_call_without_a_price_has_a_row_that_says_so(caller, harness, caplog):
    router = elsewhere(harness)
    with pytest.raises(Exception, match=r"."):  # the simulator knows no such model
        if caller == "sync":
            router.completion("other", ASK, max_tokens=9)
        else:
            asyncio.run(router.acompletion("other", ASK, max_tokens=9))
    assert harness.sim.request_count >= 1
    assert rows(harness) == [("book", "unpriced", 0)]
    assert "'other' is not governed" in caplog.text
    (line,) = harness.pipeline.report("model,provider").rows
    assert (line.keys, line.sums.calls, line.sums.unpriced) == (("other", None), 1, 1)
    assert advise(Evidence(CallLog.read(harness.pipeline.ledger), harness.pipeline.catalogue)).advice == ()


def test_a_price_that_comes_with_the_answer_corrects_the_row(harness):
    router = elsewhere(harness, input_cost_per_token=1e-6, output_cost_per_token=2e-6)
    router.completion("other", ASK, max_tokens=9, mock_response="Twelve.")
    (first, second) = rows(harness)
    assert first == ("book", "unpriced", 0)
    assert second[:2] == ("reconcile", "estimated")
    assert harness.settled == second[2] > 0


@pytest.mark.parametrize(("choice", "expected"), [("allow", []), ("deny", [])])
def test_allow_sends_without_a_row_and_deny_sends_nothing(choice, expected, make_harness):
    harness = make_harness(on_ungoverned=choice)
    with pytest.raises(UnsupportedRequestError if choice == "deny" else Exception, match=r"."):
        elsewhere(harness).completion("other", ASK, max_tokens=9)
    assert rows(harness) == expected
    assert (harness.sim.request_count > 0) == (choice == "allow")


def test_nothing_leaves_whose_row_cannot_be_written(harness, monkeypatch):
    """The ledger's own error: no storage of ours is replaced, only broken."""
    ledger = harness.pipeline.ledger

    def broken(*_, **__):
        raise LedgerUnavailableError("memory://", "gone")

    monkeypatch.setattr(type(ledger), "book", broken)
    with warnings.catch_warnings(), pytest.raises(LedgerUnavailableError):
        elsewhere(harness).completion("other", ASK, max_tokens=9)
    assert harness.sim.request_count == 0
