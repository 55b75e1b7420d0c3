"""A real ``litellm --config`` process with groups of platforms: its ledger says what they bill, whoever asks."""

from __future__ import annotations

import anthropic
import openai
import pytest
from platform_entries import azure_entry, bedrock_entry, google_account, vertex_entry
from proxy_process import Providers, Proxy

from llm_cost_middleware.simulator import Fault, fill

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "Count to forty."}]
HAIKU, PLAIN = "anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-sonnet-5"
AT_VERTEX = "claude-haiku-4-5@20251001"
COST = """
[[budgets]]
scope = "provider:bedrock"
limit = "50"
[[budgets]]
scope = "provider:vertex_ai"
limit = "50"
[platforms.azure.deployments]
"eu--gpt-5-mini" = { model = "gpt-5-mini", region = "swedencentral" }
"""
GROUPS = {"bedrock": "bedrock", "govcloud": "bedrock", "vertex": "vertex_ai", "azure": "azure", "houses": None}
"""What a group's calls are booked at; ``None``: at whichever house LiteLLM chooses."""


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A proxy of one worker with a group of each platform, and one of three houses."""
    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    pytest.importorskip("boto3", reason="boto3 is of the extra aws")
    pytest.importorskip("google.auth", reason="google-auth is of the extra google")
    with Providers(responder=fill) as sim, google_account() as account:
        home = {"model": "anthropic/claude-haiku-4-5-20251001", "api_base": sim.anthropic_url, "api_key": "k"}
        entries = [
            bedrock_entry(sim.url, "bedrock", f"us.{HAIKU}"),
            bedrock_entry(sim.url, "govcloud", PLAIN, aws_region_name="us-gov-west-1"),
            vertex_entry(sim.url, account, "vertex", "europe-west1", AT_VERTEX),
            azure_entry(sim.url, "azure", "eu--gpt-5-mini"),
            {"model_name": "houses", "litellm_params": home},
            bedrock_entry(sim.url, "houses", f"us-gov.{HAIKU}", aws_region_name="us-gov-west-1"),
            vertex_entry(sim.url, account, "houses", "eu", AT_VERTEX),
        ]
        adjust = lambda written: written["model_list"].extend(entries)
        running = Proxy(tmp_path_factory.mktemp("platforms"), sim, cost=COST, adjust=adjust)
        try:
            running.start(workers=1)
            yield running
        finally:
            running.stop()


def chat(proxy, model, **more):
    with proxy.gpt() as client:
        answer = client.chat.completions.create(model=model, messages=ASK, max_completion_tokens=40, **more)
        return len(list(answer)) if more.get("stream") else answer


def messages(proxy, model, **more):
    with proxy.claude() as client:
        answer = client.messages.create(model=model, messages=ASK, max_tokens=40, **more)
        return len(list(answer)) if more.get("stream") else answer


def responses(proxy, model, **more):
    with proxy.gpt() as client:
        answer = client.responses.create(model=model, input="Count to forty.", max_output_tokens=40, **more)
        return len(list(answer)) if more.get("stream") else answer


DOORS = {"chat": chat, "messages": messages, "responses": responses}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("group", GROUPS)
def test_every_way_is_settled_at_its_price(there, group, door):
    first = len(there.sim.bill.lines)
    before, rows = there.since(), len(there.resolutions())
    for stream in (False, True):
        DOORS[door](there, group, stream=stream)
    after = there.since()
    assert after[0] - before[0] == after[1] - before[1] > 0
    booked = [row for row in there.resolutions()[rows:] if row.status != "void"]  # of a mixed group
    assert {row.status for row in booked} == {"exact"}
    assert len(booked) == 2
    if GROUPS[group] is not None:
        assert all(f"provider:{GROUPS[group]}" in row.scopes for row in booked)
    if group == "govcloud":
        assert [line.geo for line in there.sim.bill.lines[first:]] == ["govcloud"] * 2
        assert all(f"model:{PLAIN}" in row.scopes for row in booked)


@pytest.mark.parametrize(
    ("group", "more"),
    [
        ("bedrock", {"aws_region_name": "us-gov-west-1"}), ("govcloud", {"aws_region_name": "us-east-1"}),
        ("vertex", {"vertex_location": "us-east5"}), ("vertex", {"vertex_ai_location": "global"}),
        ("bedrock", {"model_id": "us.anthropic.claude-opus-5"}), ("bedrock", {"maxTokens": 3000}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("door", ["chat", "messages"])
def test_a_client_moves_no_call_past_its_hold(there, group, more, door):
    before, first = there.since(), len(there.sim.bill.lines)
    status = 200
    try:
        DOORS[door](there, group, extra_body=more)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        status = error.status_code
    after = there.since()
    lines = there.sim.bill.lines[first:]
    assert after[0] - before[0] == after[1] - before[1]
    assert status in ({200} if lines else {400, 422})
    assert {line.geo for line in lines} <= {"govcloud" if group == "govcloud" else "regional"}
    assert all(line.tokens.output <= 40 for line in lines)


@pytest.mark.parametrize(
    ("group", "fault"),
    [("bedrock", Fault.aws("ThrottlingException")), ("vertex", Fault.google("RESOURCE_EXHAUSTED"))],
)
def test_what_a_platform_refuses_is_given_back(there, group, fault):
    before = there.since()
    there.sim.script(fault)
    with pytest.raises(openai.APIStatusError) as failed:
        chat(there, group)
    assert not there.sim.pending_faults
    assert failed.value.status_code in {429, 503}
    assert there.since() == before


@pytest.mark.parametrize("fault", ["content_filter", "Timeout"])
def test_an_error_that_azure_bills_is_booked_at_its_hold(there, fault):
    before, rows = there.since(), len(there.resolutions())
    there.sim.script(Fault.azure(fault))
    with pytest.raises(openai.APIStatusError):
        chat(there, "azure")
    after = there.since()
    assert after[0] - before[0] >= after[1] - before[1] > 0
    assert [row.status for row in there.resolutions()[rows:]] == ["unconfirmed"]
