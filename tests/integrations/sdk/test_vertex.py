"""The anthropic SDK's clients of Vertex, wrapped: the ledger says what Google bills, whatever goes wrong."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import anthropic
import pytest
from pydantic import BaseModel

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, PriceNotFoundError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Answer, Fault, auto, fill

HAIKU, SONNET = "claude-haiku-4-5@20251001", "claude-sonnet-4-6"
ASKED = {"model": HAIKU, "max_tokens": 200, "messages": [{"role": "user", "content": "Hello there, how are you?"}]}
TOOL = {
    "name": "look", "description": "Looks",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}  # fmt: skip
FAST = {"base_s": 0.01, "throttle_base_s": 0.01}


@pytest.fixture
def make_pipeline():
    made = []

    def make(**sections):
        sections.setdefault("budgets", [{"scope": "global", "limit": "50"}])
        sections.setdefault("retry", FAST)
        made.append(CostPipeline(CostConfig(**sections)))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


def client_of(sim, region="europe-west1", kind=anthropic.AnthropicVertex, **more):
    return kind(base_url=sim.vertex_url, region=region, project_id="acme", access_token="ya29.t", **more)


def check(pipeline, sim, *, exact=True):
    balance = pipeline.ledger.balance("global")
    assert balance.pending == 0
    if exact:
        assert {record.status for record in pipeline.records()} <= {"exact"}
        assert balance.settled_nanousd == sim.bill.total_nanousd
    assert balance.settled_nanousd >= sim.bill.total_nanousd


def test_a_region_that_there_is_not_is_named(make_pipeline, sim):
    governed = wrap_anthropic(client_of(sim, "mars"), make_pipeline())
    with pytest.raises(PriceNotFoundError, match="'mars' is no place of vertex_ai: correct the region"):
        governed.messages.create(**ASKED)
    assert sim.request_count == 0


@pytest.mark.parametrize(("model", "region"), [(HAIKU, "global"), (HAIKU, "europe-west1"), (SONNET, "eu"),
                                               ("claude-opus-5-5@default", "us")])  # fmt: skip
def test_ledger_and_bill_agree_whole_streamed_raw_and_with_tools(make_pipeline, sim, model, region):
    sim.responder = auto
    pipeline, asked = make_pipeline(), {**ASKED, "model": model}
    governed = wrap_anthropic(client_of(sim, region), pipeline)
    governed.messages.create(**asked)
    with governed.messages.stream(**asked) as stream:
        stream.until_done()
    for _ in governed.messages.create(**asked, stream=True):
        pass
    governed.messages.with_raw_response.create(**asked).parse()
    with governed.messages.with_streaming_response.create(**asked) as response:
        response.read()
    called = governed.messages.create(**asked, tools=[TOOL])
    assert called.content[0].type == "tool_use"
    with governed.beta.messages.stream(**asked, tools=[TOOL]) as stream:
        assert stream.get_final_message().content[0].input
    assert [record.model for record in pipeline.records()] == [f"{region}/{model}"] * 7
    assert {record.provider for record in pipeline.records()} == {"vertex_ai"}
    check(pipeline, sim)


async def test_the_async_client_is_governed_too(make_pipeline, sim):
    pipeline = make_pipeline()
    async with client_of(sim, kind=anthropic.AsyncAnthropicVertex) as client:
        governed = wrap_anthropic(client, pipeline)
        await asyncio.gather(*(governed.messages.create(**ASKED) for _ in range(4)))
        async with governed.messages.stream(**ASKED) as stream:
            await stream.until_done()
        async for _ in await governed.beta.messages.create(**ASKED, stream=True):
            pass
    check(pipeline, sim)
    assert len(pipeline.records()) == 6


def test_a_parsed_answer_and_one_that_does_not_parse_are_booked(make_pipeline, sim):
    class City(BaseModel):
        name: str

    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    sim.responder = lambda _: Answer(text='{"name": "Bern"}')
    assert governed.messages.parse(**{**ASKED, "model": SONNET}, output_format=City).parsed_output.name == "Bern"
    sim.responder = lambda _: Answer(text="no JSON")
    with pytest.raises(ValueError, match="JSON"):
        governed.messages.parse(**{**ASKED, "model": SONNET}, output_format=City)
    check(pipeline, sim)
    assert len(sim.bill.lines) == 2


def test_a_cache_is_written_and_read_at_the_places_price(make_pipeline, sim):
    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    system = [{"type": "text", "text": "rules " * 5_000, "cache_control": {"type": "ephemeral"}}]
    first, second = (governed.messages.create(**ASKED, system=system).usage for _ in range(2))
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens > 4_096
    check(pipeline, sim)


def test_a_copy_in_another_region_pays_that_regions_price(make_pipeline, sim):
    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    governed.with_options(region="global").messages.create(**ASKED)
    governed.with_options(timeout=30).messages.create(**ASKED)
    assert [record.model for record in pipeline.records()] == [f"global/{HAIKU}", f"europe-west1/{HAIKU}"]
    check(pipeline, sim)


def test_a_routed_name_goes_to_a_model_at_the_clients_place(make_pipeline, sim):
    models = [
        f"vertex_ai/global/{HAIKU}", "vertex_ai/eu/claude-sonnet-5-5", "anthropic/claude-haiku-4-5",
        "vertex_ai/eu/claude-opus-4-8@default",
    ]  # fmt: skip
    pipeline = make_pipeline(tiers=[{"name": "only", "models": models}])
    governed = wrap_anthropic(client_of(sim, "eu"), pipeline)
    governed.messages.create(**{**ASKED, "model": "smart"})
    assert pipeline.records()[-1].model == "eu/claude-sonnet-5-5"  # of what the client reaches, the cheapest
    assert sim.requests[-1].path.endswith("/locations/eu/publishers/anthropic/models/claude-sonnet-5-5:rawPredict")
    check(pipeline, sim)


def test_a_call_outside_the_regions_is_refused_before_it_leaves(make_pipeline, sim):
    from llm_cost_middleware.errors import LLMCostError

    pipeline = make_pipeline(routing={"regions": ["eu"]})
    for region in ("us-east5", "global", "europe-west2"):  # London is not in the EU
        with pytest.raises(LLMCostError, match="not served in eu"):
            wrap_anthropic(client_of(sim, region), pipeline).messages.create(**ASKED)
    wrap_anthropic(client_of(sim, "europe-west4"), pipeline).messages.create(**ASKED)
    assert sim.request_count == 1
    check(pipeline, sim)


def test_provisioned_throughput_costs_what_the_configuration_says(make_pipeline, sim):
    ptu = {"model": "claude-opus-4-8", "place": "provisioned", "input_mtok": "0", "output_mtok": "0"}
    pipeline = make_pipeline(platforms={"vertex_ai": {"deployments": {"claude-opus-4-8@default": ptu}}})
    governed = wrap_anthropic(client_of(sim), pipeline)
    governed.messages.create(**{**ASKED, "model": "claude-opus-4-8@default"})
    assert pipeline.ledger.balance("global").settled_nanousd == 0
    governed.messages.create(**ASKED)  # every other model has the list's price
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.lines[-1].cost_nanousd


def test_other_makers_models_and_unknown_ones_do_not_leave(make_pipeline, sim):
    governed = wrap_anthropic(client_of(sim), make_pipeline())
    for model in ("gemini-2.5-pro", "claude-none@20250101"):
        with pytest.raises(PriceNotFoundError):
            governed.messages.create(**{**ASKED, "model": model})
    assert sim.request_count == 0


FAULTS = [
    Fault.google("RESOURCE_EXHAUSTED"), Fault.google("RESOURCE_EXHAUSTED", listed=True), Fault.google("UNAVAILABLE"),
    Fault.google("INTERNAL"), Fault.google("DEADLINE_EXCEEDED"), Fault.google("ABORTED"), Fault.overloaded(),
    Fault.reset(),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}-{fault.preset}")
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_retry_helps_is_retried_once_under_a_hold_of_its_own(make_pipeline, sim, fault, streamed):
    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    sim.script(fault)
    if streamed:
        with governed.messages.stream(**ASKED) as stream:
            stream.until_done()
    else:
        governed.messages.create(**ASKED)
    assert sim.request_count == 2
    assert pipeline.ledger.balance("global").pending == 0
    check(pipeline, sim, exact=fault.kind == "status")


@pytest.mark.parametrize(
    "name", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"]
)
def test_what_no_retry_helps_is_sent_once_and_costs_nothing(make_pipeline, sim, name):
    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    sim.script(Fault.google(name), times=3)
    with pytest.raises(anthropic.APIStatusError):
        governed.messages.create(**ASKED)
    assert sim.request_count == 1
    assert pipeline.ledger.balance("global").settled_nanousd == 0
    check(pipeline, sim)


@pytest.mark.parametrize("fault", [Fault.cut(after=4), Fault.error_event(after=4), Fault.cut(after=4, clean=True)],
                         ids=["cut", "error", "clean"])  # fmt: skip
def test_a_broken_stream_is_booked_at_least_at_its_bill(make_pipeline, sim, fault):
    sim.responder = fill
    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    sim.script(fault)
    with suppress(Exception), governed.messages.stream(**ASKED) as stream:
        stream.until_done()
    check(pipeline, sim, exact=False)
    assert pipeline.records()[-1].status != "exact"


def test_a_race_sends_exactly_what_fits(make_pipeline, sim):
    sim.responder, sim.latency_s = fill, 0.05
    quoted = make_pipeline()
    wrap_anthropic(client_of(sim), quoted).messages.create(**ASKED)
    hold = quoted.records()[-1].reserved_nanousd
    sim.reset()
    pipeline = make_pipeline(
        budgets=[{"scope": "provider:vertex_ai", "limit": str(hold * 5 / 10**9)}, {"scope": "global", "limit": "50"}],
        output={"on_insufficient": ["raise"]},
    )
    governed = wrap_anthropic(client_of(sim), pipeline)

    def ask(_):
        with suppress(BudgetExceededError):
            governed.messages.create(**ASKED)
            return True
        return False

    with ThreadPoolExecutor(12) as threads:
        answered = sum(threads.map(ask, range(12)))
    assert (answered, len(sim.bill.lines)) == (5, 5)  # what is counted before a refusal costs nothing
    check(pipeline, sim)


def test_a_call_that_does_not_fit_is_counted_by_vertex_and_refused_before_it_leaves(make_pipeline, sim):
    pipeline = make_pipeline(budgets=[{"scope": "global", "limit": "0.0005"}])
    governed = wrap_anthropic(client_of(sim), pipeline)
    with pytest.raises(BudgetExceededError):
        governed.messages.create(**{**ASKED, "messages": [{"role": "user", "content": "word " * 4_000}]})
    assert all(request.path.endswith("count-tokens:rawPredict") for request in sim.requests)
    assert not sim.bill.lines
    governed.messages.create(**{**ASKED, "max_tokens": 5, "messages": [{"role": "user", "content": "word " * 100}]})
    check(pipeline, sim)


def test_batches_do_not_leave(make_pipeline, sim):
    pipeline = make_pipeline()
    governed = wrap_anthropic(client_of(sim), pipeline)
    with pytest.raises(anthropic.AnthropicError, match="Batch API is not supported"):
        governed.messages.batches.create(requests=[{"custom_id": "a", "params": ASKED}])
    assert (sim.request_count, pipeline.ledger.balance("global").settled_nanousd) == (0, 0)
    check(pipeline, sim)


def test_a_token_that_cannot_be_fetched_costs_nothing(make_pipeline, sim):
    exceptions = pytest.importorskip("google.auth.exceptions", reason="google-auth is of the extra google")

    class Lost:
        expired = False

        @property
        def token(self):
            raise exceptions.RefreshError("the account is gone")

    pipeline = make_pipeline()
    client = anthropic.AnthropicVertex(base_url=sim.vertex_url, region="eu", project_id="acme", credentials=Lost())
    with pytest.raises(exceptions.RefreshError):
        wrap_anthropic(client, pipeline).messages.create(**ASKED)
    assert (sim.request_count, pipeline.ledger.balance("global").settled_nanousd) == (0, 0)
    check(pipeline, sim)


def test_a_region_that_is_set_after_wrapping_is_held_booked_and_judged(make_pipeline, sim):
    pipeline = make_pipeline(routing={"regions": ["eu", "global"]})
    governed = wrap_anthropic(client_of(sim, "global"), pipeline)
    for region in ("global", "eu", "europe-west1", "global"):
        governed.region = region
        governed.messages.create(**ASKED)
    governed.region = "us-east5"
    with pytest.raises(NoEligibleModelError, match="not served in eu or global"):
        governed.messages.create(**ASKED)
    places = [record.model.partition("/")[0] for record in pipeline.records()]
    assert places == ["global", "eu", "europe-west1", "global"]
    check(pipeline, sim)
