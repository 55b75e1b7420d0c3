"""Groups of Vertex in a ``CostAwareRouter``: the ledger says what Google bills, in mixed groups, too."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("google.auth", reason="google-auth is of the extra google")

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.simulator import Fault, auto, fill

pytestmark = pytest.mark.litellm
HAIKU = "claude-haiku-4-5@20251001"
MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look", "description": "Looks",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}  # fmt: skip


class _Tokens(BaseHTTPRequestHandler):
    """Google's token endpoint: LiteLLM asks it with the key of a service account."""

    def do_POST(self):
        body = json.dumps({"access_token": "ya29.t", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def account():
    """A service account whose tokens come from this machine."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {
        "type": "service_account", "client_email": "a@acme.iam.gserviceaccount.com", "project_id": "acme",
        "private_key": key.private_bytes(*form).decode(), "token_uri": f"http://127.0.0.1:{server.server_port}/token",
    }  # fmt: skip
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def entry(sim, account):
    """Make an entry of a ``model_list``."""

    def make(name, place="europe-west1", model=HAIKU, **params):
        url = f"{sim.vertex_url}/projects/acme/locations/{place}/publishers/anthropic/models/{model}"
        given = {"api_base": url, "vertex_project": "acme", "vertex_location": place,
                 "vertex_credentials": json.dumps(account), **params}  # fmt: skip
        return {"model_name": name, "litellm_params": {"model": f"vertex_ai/{model}", **given}}

    return make


def test_chats_whole_and_streamed_with_tools_and_cache(make_harness, entry, sim):
    sim.responder = auto
    harness = make_harness(cache={"mode": "system"})
    router = harness.router([entry("claude")])
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
    assert {record.model for record in harness.pipeline.records()} == {f"europe-west1/{HAIKU}"}
    assert sum(record.usage.cache_read for record in harness.pipeline.records()) > 10_000
    harness.agree()


def test_a_group_of_two_places_is_held_at_the_dearer_and_booked_at_its_own(make_harness, entry, sim):
    harness = make_harness()
    router = harness.router([entry("claude"), entry("claude", "global")])
    for _ in range(8):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert len({line.geo for line in sim.bill.lines}) == 2
    harness.agree()


def test_an_exhausted_quota_is_sent_again_by_us_and_no_more_than_configured(make_harness, entry, sim):
    import litellm

    harness = make_harness(retry={"max_attempts": 3})
    router = harness.router([entry("claude")])
    sim.script(Fault.google("RESOURCE_EXHAUSTED"), times=2)
    router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 3
    sim.script(Fault.google("INVALID_ARGUMENT"))
    with pytest.raises(litellm.BadRequestError):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 4
    harness.agree()


def test_a_broken_stream_is_booked_at_no_less_than_its_bill(make_harness, entry, sim):
    sim.responder = fill
    harness = make_harness(retry={"max_attempts": 1})
    router = harness.router([entry("claude")])
    for fault in (Fault.error_event(after=3), Fault.cut(after=3)):
        sim.script(fault)
        with pytest.raises(Exception):  # noqa: B017 - LiteLLM's choice
            for _ in router.completion("claude", MESSAGES, max_tokens=100, stream=True):
                pass
        harness.cover()


def test_a_refusal_sends_nothing_and_gemini_is_not_taken_for_a_claude(make_harness, entry, sim):
    harness = make_harness(budgets=[{"scope": "provider:vertex_ai", "limit": "0.000001"}])
    with pytest.raises(BudgetExceededError):
        harness.router([entry("claude")]).completion("claude", MESSAGES, max_tokens=100)
    assert not sim.bill.lines
    from llm_cost_middleware.integrations.litellm.deployments import target_of

    assert target_of({"model": "vertex_ai/gemini-2.5-pro", "vertex_location": "eu"}) is None


def test_one_model_at_home_at_vertex_and_regional_is_one_tier_cheapest_first_with_failover(make_harness, entry, sim):
    home = "anthropic/claude-haiku-4-5-20251001"
    tiers = [{"name": "only", "models": [f"vertex_ai/europe-west1/{HAIKU}", home]}]
    harness = make_harness(tiers=tiers, retry={"max_attempts": 2})
    router = harness.router([entry("there"), harness.deployment("here", home)])
    router.completion("smart", MESSAGES, max_tokens=100)
    assert [record.provider for record in harness.pipeline.records()] == ["anthropic"]  # a tenth cheaper
    sim.script(Fault.overloaded(), times=4, match=lambda exchange: not exchange.served_by)
    router.completion("smart", MESSAGES, max_tokens=100)
    assert harness.pipeline.records()[-1].provider == "vertex_ai"
    harness.agree()


def test_responses_and_messages(make_harness, entry, sim):
    sim.responder = auto
    harness = make_harness()
    router = harness.router([entry("claude")])

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


@pytest.mark.parametrize(
    ("written", "given", "booked", "inside"),
    [
        ("europe-west1", "us-east5", "europe-west1", True),
        ("us-east5", "eu", "us-east5", False),
        ("eu", None, "eu", True),
        ("europe-west1", "global", "europe-west1", True),  # a tenth dearer than what is given
        ("europe-west2", "europe-west1", "europe-west2", False),  # London
        ("global", "eu", "global", False),
    ],
)
def test_what_an_address_says_is_where_a_deployment_is_whatever_its_location_says(
    make_harness, entry, sim, written, given, booked, inside
):
    deployment = entry("claude", written, vertex_location=given)
    free, ruled = make_harness(), make_harness(routing={"regions": ["eu"]})
    free.router([deployment]).completion("claude", MESSAGES, max_tokens=100)
    assert [record.model for record in free.pipeline.records()] == [f"{booked}/{HAIKU}"]
    free.agree()
    router = ruled.router([deployment])
    if inside:
        router.completion("claude", MESSAGES, max_tokens=100)
    else:
        with pytest.raises(NoEligibleModelError, match="not served in eu"):
            router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 1 + inside


def test_a_call_that_names_another_location_than_its_deployment_is_refused(make_harness, entry, sim):
    router = make_harness(routing={"regions": ["eu"]}).router([entry("claude")])
    for more in ({"vertex_location": "us-east5"}, {"vertex_ai_location": "us"}, {"api_base": f"{sim.vertex_url}/x"}):
        with pytest.raises(UnsupportedRequestError, match=next(iter(more))):
            router.completion("claude", MESSAGES, max_tokens=100, **more)
    assert sim.request_count == 0
