"""Claude at platforms in a ``CostAwareRouter``: the ledger says what each bills, whatever goes wrong."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware.errors import BudgetExceededError, UnsupportedRequestError
from llm_cost_middleware.simulator import Fault, auto, fill

pytestmark = pytest.mark.litellm
MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]
HAIKU, AT_VERTEX = "anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5@20251001"
TOOL = {
    "type": "function",
    "function": {
        "name": "look", "description": "Looks",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}  # fmt: skip
WAYS = {"bedrock": "", "bedrock converse": "converse/", "bedrock invoke": "invoke/", "vertex": None}
BUSY = {"bedrock": Fault.aws("ThrottlingException"), "vertex": Fault.google("RESOURCE_EXHAUSTED")}
WRONG = {"bedrock": Fault.aws("ValidationException"), "vertex": Fault.google("INVALID_ARGUMENT")}


@pytest.fixture(params=["bedrock", "vertex"])
def platform(request):
    """A platform."""
    return request.param


@pytest.fixture
def entry(request):
    """Make an entry of a group of a platform, where it is a tenth dearer, or at its global place."""

    def make(platform, name="claude", *, globally=False, way=""):
        made = request.getfixturevalue(platform)
        if platform == "vertex":
            return made(name, "global" if globally else "europe-west1", AT_VERTEX)
        return made(name, f"{way}{'global' if globally else 'us'}.{HAIKU}")

    return make


@pytest.mark.parametrize("way", WAYS)
def test_chats_whole_and_streamed_with_tools_and_cache(make_harness, entry, sim, way):
    sim.responder = auto
    harness = make_harness(cache={"mode": "system"})
    router = harness.router([entry(way.partition(" ")[0], way=WAYS[way])])
    system = {"role": "system", "content": "You know all bridges. " * 2_000}
    for _ in range(2):
        router.completion("claude", [system, *MESSAGES], max_tokens=100)
    for _ in router.completion("claude", [system, *MESSAGES], max_tokens=100, stream=True):
        pass
    called = router.completion("claude", MESSAGES, max_tokens=100, tools=[TOOL])
    assert called.choices[0].message.tool_calls[0].function.name == "look"

    async def run():
        await router.acompletion("claude", MESSAGES, max_tokens=100)
        async for _ in await router.acompletion("claude", MESSAGES, max_tokens=100, stream=True):
            pass

    asyncio.run(run())
    booked = f"us.{HAIKU}" if way != "vertex" else f"europe-west1/{AT_VERTEX}"
    assert {record.model for record in harness.pipeline.records()} == {booked}
    assert sum(record.usage.cache_read for record in harness.pipeline.records()) > 10_000
    harness.agree()


def test_responses_and_messages(make_harness, entry, sim, platform):
    sim.responder = auto
    harness = make_harness()
    router = harness.router([entry(platform, globally=True)])

    async def run():
        await router.aresponses(input="Hello there", model="claude", max_output_tokens=100)
        async for _ in await router.aresponses(input="Hello there", model="claude", max_output_tokens=100, stream=True):
            pass
        await router.aanthropic_messages(model="claude", messages=MESSAGES, max_tokens=100)
        async for _ in await router.aanthropic_messages(model="claude", messages=MESSAGES, max_tokens=100, stream=True):
            pass

    asyncio.run(run())
    assert len(harness.pipeline.records()) == 4
    harness.agree()


def test_a_group_of_two_places_is_held_at_the_dearer_and_booked_at_its_own(make_harness, entry, sim, platform):
    harness = make_harness()
    router = harness.router([entry(platform), entry(platform, globally=True)])
    for _ in range(8):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert len({line.geo for line in sim.bill.lines}) == 2
    harness.agree()


def test_what_a_retry_helps_is_sent_again_by_us_and_no_more_than_configured(make_harness, entry, sim, platform):
    import litellm

    harness = make_harness(retry={"max_attempts": 3})
    router = harness.router([entry(platform)])
    sim.script(BUSY[platform], times=2)
    router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 3
    sim.script(WRONG[platform])
    with pytest.raises(litellm.BadRequestError):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 4
    harness.agree()


@pytest.mark.parametrize("fault", [Fault.error_event(after=3), Fault.cut(after=3)])
def test_a_broken_stream_is_booked_at_no_less_than_its_bill(make_harness, entry, sim, platform, fault):
    sim.responder = fill
    harness = make_harness(retry={"max_attempts": 1})
    router = harness.router([entry(platform)])
    sim.script(fault)
    with pytest.raises(Exception):  # noqa: B017 - LiteLLM's choice
        for _ in router.completion("claude", MESSAGES, max_tokens=100, stream=True):
            pass
    harness.cover()


def test_a_refusal_sends_nothing(make_harness, entry, sim, platform):
    scope = {"bedrock": "provider:bedrock", "vertex": "provider:vertex_ai"}[platform]
    harness = make_harness(budgets=[{"scope": scope, "limit": "0.000001"}])
    with pytest.raises(BudgetExceededError):
        harness.router([entry(platform)]).completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 0


@pytest.mark.parametrize("model", ["amazon.nova-pro-v1:0", "gemini-2.5-pro"])
def test_other_makers_models_are_not_taken_for_a_claude(make_harness, request, sim, model):
    made = request.getfixturevalue("bedrock" if "nova" in model else "vertex")
    entry = made("other", model) if "nova" in model else made("other", "eu", model)
    with pytest.raises(UnsupportedRequestError):
        make_harness(on_ungoverned="deny").router([entry]).completion("other", MESSAGES, max_tokens=100)
    assert sim.request_count == 0
