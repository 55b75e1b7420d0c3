"""Calls that can wait: at flex where that costs less, back at the standard tier in time, and booked as billed."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from plain_call import BOTH, answer, request

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline, cost_context
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.bound import REQUEST_OVERHEAD
from llm_cost_middleware.simulator import Fault, Simulator, TierMarket, fill
from llm_cost_middleware.testing import FakeClock

BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello there"}], "max_completion_tokens": 64}
SCARCE = TierMarket(flex_unavailable=1.0)


@pytest.fixture(scope="module")
def server():
    with Simulator(responder=fill, keep_bodies=True) as simulator:
        yield simulator


@pytest.fixture
def sim(server):
    server.reset()
    server.tiers = TierMarket()
    return server


class Desk:
    """A wrapped client, its pipeline and its clock."""

    def __init__(self, sim, **config):
        self.sim, self.clock = sim, FakeClock()
        config.setdefault("budgets", [{"scope": "global", "limit": "10"}])
        config.setdefault("providers", {"openai": {"timeout_s": 30}})
        self.pipeline = CostPipeline(CostConfig(**config), clock=self.clock)
        self.raw = openai.OpenAI(base_url=sim.openai_url, api_key="k")
        self.client = wrap_openai(self.raw, self.pipeline)

    def ask(self, patience="10m", **more):
        body = {**BODY, **more}
        with cost_context(patience=patience):
            if "input" in body:
                body = {name: body[name] for name in body if name not in ("messages", "max_completion_tokens")}
                return self.client.responses.create(max_output_tokens=64, **body)
            return self.client.chat.completions.create(**body)

    @property
    def spent(self):
        return self.pipeline.ledger.balance("global").settled

    @property
    def billed(self):
        return NanoUSD(self.sim.bill.total_nanousd).usd

    def decision(self):
        return self.pipeline.decisions()[-1]


@pytest.fixture
def desk(sim):
    made = []

    def make(**config):
        made.append(Desk(sim, **config))
        return made[-1]

    yield make
    for each in made:
        each.pipeline.close()
        each.raw.close()


def tiers(sim):
    return [request.body.get("service_tier") for request in sim.requests]


SHAPES = {"chat": {}, "responses": {"input": "hello"}, "chat stream": {"stream": True},
          "responses stream": {"input": "hello", "stream": True}}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_call_that_can_wait_goes_to_flex_and_is_booked_as_its_answer_says(desk, sim, shape):
    at = desk()
    answer = at.ask(**SHAPES[shape])
    if "stream" in shape:
        list(answer)
    else:
        assert answer.service_tier == "flex"
    assert tiers(sim) == ["flex"]
    assert at.spent == at.billed > 0
    decision = at.decision()
    assert decision.lane == "flex"
    assert [each.lane for each in decision.lanes] == ["standard", "flex"]
    assert "flex lane: can wait 10 m" in decision.reason
    assert type(decision).from_json(decision.to_json()) == decision
    (row,) = at.pipeline.report(by="service_tier").rows
    assert row.keys == ("flex",)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_capacity_the_standard_tier_answers_and_nothing_is_lost(desk, sim, shape):
    sim.tiers = SCARCE
    at = desk()
    answer = at.ask(**SHAPES[shape])
    if "stream" in shape:
        list(answer)
    sent = tiers(sim)
    assert sent == ["flex"] * 4 + [None]
    assert at.spent == at.billed > 0
    assert at.pipeline.ledger.balance("global").pending == 0
    assert at.clock.monotonic() < 600 - 60


def test_little_patience_leaves_no_time_to_ask_flex_again(desk, sim):
    sim.tiers = SCARCE
    desk().ask("95s")
    assert tiers(sim) == ["flex", None]


@pytest.mark.parametrize("status", [408, 504])
def test_what_times_out_at_flex_stays_held_until_it_is_reconciled(desk, sim, status):
    if status == 408:
        sim.tiers = TierMarket(flex_timeouts=1.0, timeout_s=0.01)
    else:
        sim.script(Fault.status(504))
    at = desk()
    at.ask()
    assert tiers(sim) == ["flex", None]
    assert at.spent >= at.billed > 0
    statuses = [record.status for record in at.pipeline.records()]
    assert statuses == ["unconfirmed", "exact"]
    assert [record.service_tier for record in at.pipeline.records()] == ["flex", "default"]
    lost = at.pipeline.records()[0]
    assert lost.reserved_nanousd is None or lost.cost_usd == lost.reserved_nanousd.usd


def test_a_try_is_given_up_in_time_for_the_standard_tier(desk, sim):
    sim.script(Fault.hang(billed=True))
    at = desk(providers={})
    at.pipeline._stages.lanes._history = quick_flex()
    at.ask("1s")
    assert tiers(sim) == ["flex", None]
    assert at.spent >= at.billed > 0
    assert [record.status for record in at.pipeline.records()] == ["unconfirmed", "exact"]


def quick_flex():
    """A history in which both tiers answer within parts of a second."""
    from llm_cost_middleware.request import ModelRef
    from llm_cost_middleware.routing.lanes import LaneHistory

    history = LaneHistory()
    for lane, seconds in (("flex", 0.05), ("standard", 0.15)):
        for _ in range(20):
            history.observe(ModelRef("openai", "gpt-5-mini"), lane, "answered", seconds, 0.0)
    return history


@pytest.mark.parametrize(
    ("more", "config"),
    [
        ({"service_tier": "default"}, {}),
        ({"service_tier": "priority"}, {}),
        ({"service_tier": "auto"}, {}),
        ({"model": "gpt-4o-mini", "max_completion_tokens": 32}, {}),
        ({}, {"retry": {"max_attempts": 1}}),
        ({}, {"providers": {"openai": {"gateway": "foreign"}}}),
        ({}, {"providers": {"openai": {"service_tier": "priority", "send_service_tier": True}}}),
        ({"patience": 0}, {}),
        ({"patience": "20s"}, {}),
    ],
)
def test_what_may_not_go_to_flex_is_sent_as_without_patience(desk, sim, more, config):
    more = dict(more)
    patience = more.pop("patience", "1h")
    at = desk(**config)
    at.ask(patience, **more)
    at.ask(0, **more)
    patient, plain = (request.body for request in sim.requests)
    assert patient == plain
    assert patient.get("service_tier") != "flex"
    assert at.spent == at.billed > 0


def test_one_request_alone_stays_at_the_standard_tier(desk, sim):
    at = desk()
    with cost_context(patience="1h"):
        at.client.with_options(max_retries=0).chat.completions.create(**BODY)
    assert tiers(sim) == [None]
    assert "sent once only" in at.decision().reason


def test_the_held_amount_is_that_of_the_dearer_tier(desk, sim):
    del sim
    at = desk()
    at.ask()
    at.ask(0)
    flex, plain = at.pipeline.records()
    # Where a vocabulary is loaded, the hold of an undeclared tier, which guarantees nothing, leaves the overhead out.
    overhead = REQUEST_OVERHEAD * at.pipeline.catalogue.rates("openai", "gpt-5-mini").levels[0].uncached_input // 1_000
    assert flex.reserved_nanousd - plain.reserved_nanousd in (0, overhead)
    assert flex.cost_usd * 2 == plain.cost_usd


def test_a_flex_request_that_is_served_at_the_default_is_booked_at_it(desk, sim):
    sim.tiers = TierMarket(project="standard")

    def dearer(reading, body, number):
        return TierMarket().serve(reading, {**body, "service_tier": "default"}, number)._replace(tier="standard")

    class Downgrading(TierMarket):
        def serve(self, reading, body, number):
            return dearer(reading, body, number)

    sim.tiers = Downgrading()
    at = desk()
    assert at.ask().service_tier == "default"
    assert at.spent == at.billed > 0


def test_each_attempt_has_a_reservation_of_its_own_and_a_budget_refuses_the_second(desk, sim):
    sim.script(Fault.status(504))
    probe = desk()
    probe.ask(0)
    hold = probe.pipeline.records()[-1].reserved_nanousd.usd
    sim.reset()
    sim.script(Fault.status(504))
    at = desk(budgets=[{"scope": "global", "limit": f"{hold * 3 / 2:f}"}], output={"on_insufficient": ["raise"]})
    with pytest.raises(BudgetExceededError):
        at.ask()
    assert tiers(sim) == ["flex"]
    assert at.spent >= at.billed


def test_an_invalid_request_fails_as_without_patience(desk, sim):
    at = desk()
    with pytest.raises(openai.BadRequestError) as refused:
        at.ask(temperature=7.0)
    assert "temperature" in str(refused.value)
    assert at.spent == at.billed == 0
    assert tiers(sim) == ["flex", None]


def test_what_flex_lacks_says_nothing_of_the_standard_tier(desk, sim):
    sim.tiers = SCARCE
    at = desk()
    for _ in range(12):
        at.ask("95s")
    assert at.spent == at.billed > 0
    sent = tiers(sim)
    assert sent.count(None) == 12
    assert sent[-1] is None
    at.ask(0)  # no breaker is open


def test_flex_that_refuses_for_long_is_left_alone_for_a_while_and_tried_again(desk, sim):
    sim.tiers = TierMarket(flex_timeouts=1.0, timeout_s=0.001)
    at = desk()
    for _ in range(40):
        at.ask("95s")
    assert "flex" not in tiers(sim)[-3:]
    assert at.decision().lane == "standard"


def test_an_observer_says_what_it_would_do_and_sends_what_the_caller_wrote(desk, sim):
    at = desk(mode="observe")
    at.ask()
    at.ask(0)
    assert tiers(sim) == [None, None]
    assert sim.requests[0].body == sim.requests[1].body
    assert [each.lane for each in at.pipeline.decisions()] == ["flex", ""]
    assert at.spent == at.billed


def test_sites_are_patient_by_configuration(desk, sim):
    at = desk(routing={"sites": {"nightly-*": {"patience": "1h"}}})
    for site in ("nightly-classes", "chat"):
        with cost_context(site=site):
            at.client.chat.completions.create(**BODY)
    assert tiers(sim) == ["flex", None]


def test_on_an_event_loop_it_is_the_same(sim):
    sim.tiers = SCARCE

    async def go():
        pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "10"}]), clock=FakeClock())
        raw = openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k")
        client = wrap_openai(raw, pipeline)
        with cost_context(patience="10m"):
            await client.chat.completions.create(**BODY)
            stream = await client.responses.create(model="gpt-5-mini", input="hello", max_output_tokens=64, stream=True)
            async for _ in stream:
                pass
        spent = pipeline.ledger.balance("global").settled
        await pipeline.aclose()
        await raw.close()
        return spent

    assert asyncio.run(go()) == NanoUSD(sim.bill.total_nanousd).usd > 0
    assert tiers(sim).count("flex") == 8


def test_another_process_learns_how_long_flex_took(desk, tmp_path, sim):
    config = {"ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}}
    at = desk(**config)
    for _ in range(10):
        at.ask()
    lines = [json.loads(line.data) for line in at.pipeline.ledger.journal.read("lane")]
    assert [line["e"] for line in lines] == ["answered"] * 10
    later = desk(**config)
    later.ask()
    flex = next(each for each in later.decision().lanes if each.lane == "flex")
    assert flex.late_s < 1


def test_a_wait_that_is_asked_for_does_not_outlast_the_patience(desk, sim):
    sim.script(Fault.status(429, retry_after=4_000))
    at = desk()
    at.ask()
    assert tiers(sim) == ["flex", None]
    assert at.clock.monotonic() < 600


def test_lines_of_others_are_passed_over(desk, tmp_path, sim):
    config = {"ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}}
    at = desk(**config)
    odd = (b"", b"[]", b"\xff", b'{"m":["a"],"l":"flex","e":"answered","s":1}',
           b'{"m":["openai","gpt-5-mini"],"l":"flex","e":"answered","s":1e400}',
           b'{"m":["openai","gpt-5-mini"],"l":[],"e":{},"s":1}')  # fmt: skip
    for line in (*odd, *[b'{"m":["openai","gpt-5-mini"],"l":"flex","e":"answered","s":7}'] * 10):
        at.pipeline.ledger.journal.append("lane", "x", at.clock.now(), line)
    at.ask()
    assert next(each.late_s for each in at.decision().lanes if each.lane == "flex") == 7
    assert at.spent == at.billed > 0


def test_no_patience_leaves_no_trace(desk, sim):
    at = desk()
    at.ask(None)
    assert tiers(sim) == [None]
    assert at.decision().lane == ""
    assert "lane" not in json.loads(at.decision().to_json())
    assert not list(at.pipeline.ledger.journal.read("lane")) if at.pipeline.ledger.journal else True


def test_a_call_without_patience_is_held_for_as_long_as_configured(sim):
    """However short: only a try at flex is held for longer."""
    desk = Desk(sim, ledger={"hold_ttl_s": 30})
    swept = []

    def send(_):
        desk.clock.advance(31)
        swept.append(desk.pipeline.ledger.sweep())
        return answer()

    desk.pipeline.run(request(), send, providers=BOTH)
    assert swept == [1]
