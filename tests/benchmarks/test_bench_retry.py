"""The retry simulation in short, and what classifying an exception costs."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from timeit import repeat

import pytest

from llm_cost_middleware.retry.classify import classify_error

HERE = Path(__file__).resolve().parent
RESULTS = json.loads((HERE / "results" / "retry_storms.json").read_text())
FULL = ("outage", "storm", "brownout", "bucket")
MISSED = {("brownout rising 5 to 50", "ours"): {"wasted": 0.1032}}
"""Goals that the full run does not reach: a rush into a provider that is slow is seen when the first calls time out."""


@pytest.fixture(scope="module")
def storm():
    spec = importlib.util.spec_from_file_location("retry_storm", HERE / "retry_storm.py")
    sys.modules["retry_storm"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scenario", FULL)
@pytest.mark.parametrize("policy", ["ours", "ours, max_wait_s=75"])
def test_in_short_the_goals_hold(storm, scenario, policy):
    """A fifth of the fleet, one seed: with fewer clients in a process chance weighs more, so the peak gets room."""
    run = storm.simulate(policy, storm.SCENARIOS[scenario], 3, scale=0.2)
    assert run.load <= 1.1
    assert run.load_in_fault <= (0.7 if scenario == "outage" else 1.1)
    assert run.passed_after_probe >= 0.98
    assert run.wasted <= 0.1
    assert run.recovery_s is not None
    assert run.recovery_s <= 20
    assert run.peak_after <= 3.0
    if "wait" in policy:
        assert run.success_in_fault >= (0.6 if scenario == "brownout" else 0.95)


def test_in_short_the_others_fail_where_they_are_known_to(storm):
    brownout = storm.simulate("classic", storm.SCENARIOS["brownout"], 3, scale=0.2)
    assert brownout.recovery_s is None
    assert brownout.wasted > 0.8
    herd = storm.simulate("SDK default", storm.SCENARIOS["storm"], 3, scale=0.2)
    assert herd.peak_after > 20


def test_a_seed_gives_the_same_run_again(storm):
    runs = [storm.simulate("ours", storm.SCENARIOS["bucket"], 5, scale=0.1) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] != storm.simulate("ours", storm.SCENARIOS["bucket"], 6, scale=0.1)


@pytest.mark.parametrize("traffic", ["rising 1 to 200", "rising 5 to 50", "falling 100 to 10"])
def test_in_short_every_call_passes_soon_after_a_probe_whatever_the_traffic(storm, traffic):
    run = storm.simulate("ours", storm.OTHER_TRAFFIC[f"outage {traffic}"], 3, scale=0.2)
    assert run.passed_after_probe >= 0.99
    assert run.load <= 1.1


@pytest.mark.parametrize(
    ("scenario", "policy"),
    [(name, policy) for name, row in RESULTS["runs"].items() for policy in row if policy.startswith("ours")],
)
def test_the_figures_of_the_last_full_run_reach_the_goals(scenario, policy):
    row, other = RESULTS["runs"][scenario][policy], " at " in scenario
    goals = {"load": 1.1, "load_in_fault": 0.6 if scenario.startswith("outage") else 1.1, "wasted": 0.1}
    # fewer calls a second vary more, and what is left of a rare trouble takes longer to tell from the trouble itself
    goals |= {} if other else {"recovery_s": 15, "peak_after": 3.0}
    missed = {name: row[name] for name, most in goals.items() if row[name] is None or row[name] > most}
    if not other and policy == "ours" and row["passed_after_probe"] < 0.99:
        missed["passed_after_probe"] = row["passed_after_probe"]
    assert missed == MISSED.get((scenario, policy), {})


def test_what_classifying_costs():
    import anthropic
    import httpx
    import httpx2
    import openai

    headers = {
        "content-type": "application/json", "date": "Mon, 23 Nov 2026 12:00:00 GMT", "retry-after": "3", "server": "x",
        "x-request-id": "req_1", "request-id": "req_1", "cf-ray": "1", "x-should-retry": "true",
        "x-ratelimit-limit-requests": "500", "x-ratelimit-limit-tokens": "1", "x-ratelimit-remaining-requests": "0",
    }  # fmt: skip
    body = {"error": {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}}
    of_openai = openai.RateLimitError(
        "m",
        response=httpx.Response(429, headers=headers, request=httpx.Request("POST", "http://x")),
        body=body["error"],
    )
    of_anthropic = anthropic.RateLimitError(
        "m", response=httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://x")), body=body
    )
    refused = openai.APIConnectionError(request=httpx.Request("POST", "http://x"))
    refused.__cause__ = httpx.ConnectError("refused")
    refused.__cause__.__cause__ = ConnectionRefusedError(111, "refused")

    def raw() -> tuple:
        """The least that the decision needs, as each SDK itself reads it."""
        seen = of_openai.response.headers
        return of_openai.status_code, of_openai.code, seen.get("retry-after"), seen.get("x-should-retry")

    def microseconds(function) -> float:
        return min(repeat(function, number=50, repeat=100)) / 50 * 1e6  # short rounds: the machine is shared

    least = microseconds(raw)
    print(f"\nraw look at status, code and two headers: {least:.1f} us")
    for error in (of_openai, of_anthropic, refused, asyncio.CancelledError(), ValueError("server_error: x")):
        took = microseconds(lambda error=error: classify_error(error))
        print(
            f"classify_error({type(error).__module__}.{type(error).__name__}): {took:.1f} us, {took / least:.1f} x raw"
        )
    assert classify_error(of_openai).kind == classify_error(of_anthropic).kind == "rate_limited"
