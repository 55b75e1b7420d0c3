"""The retries and fallbacks of a proxy's owner, in its ``config.yaml``: they are made, each with a reservation."""

from __future__ import annotations

import anthropic
import openai
import pytest

from llm_cost_middleware.simulator import Fault, fill
from tests.integrations.litellm.test_proxy import DOORS, every_door
from tests.support.proxy_process import Providers, Proxy

SMALL, CLAUDE = "gpt-5-mini", "claude-sonnet-4-6"
COST = f"""
[[budgets]]
scope = "user:frugal"
limit = "0.00012"
[[budgets]]
scope = "model:{CLAUDE}"
limit = "50"
"""


def retrying(config):
    config["router_settings"] |= {
        "num_retries": 1, "disable_cooldowns": True, "fallbacks": [{SMALL: [CLAUDE]}, {CLAUDE: [SMALL]}],
    }  # fmt: skip
    config["litellm_settings"].pop("num_retries")


@pytest.fixture(scope="module")
def owned(tmp_path_factory):
    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    with Providers(responder=fill) as sim:
        running = Proxy(tmp_path_factory.mktemp("owned"), sim, adjust=retrying, cost=COST)
        try:
            yield running.start(workers=1)
        finally:
            running.stop()


def held_since(proxy, count):
    return len({row.id for row in proxy.ledger.rows() if row.kind == "reserve"}) - count


def of(model):
    return lambda request: isinstance(request.body, dict) and request.body.get("model") == model


@every_door
@pytest.mark.parametrize("stream", [False, True])
def test_the_owners_retries_and_fallbacks_are_made_and_each_has_a_reservation(name, stream, owned):
    door, sdk = DOORS[name]
    first = CLAUDE if name == "messages" else SMALL
    before, reserved, sent = owned.since(), held_since(owned, 0), owned.sim.request_count
    owned.sim.script(Fault.status(500), times=2, match=of(first))
    with getattr(owned, sdk)() as client:
        answer = door(owned, client, model=first, stream=stream)
        if stream:
            assert len(list(answer)) > 1
    assert owned.sim.request_count - sent == 3
    assert held_since(owned, reserved) == 3
    after = owned.since()
    assert after[0] - before[0] == after[1] - before[1] > 0


@every_door
def test_where_nothing_answers_the_error_is_the_providers_and_nothing_is_booked(name, owned):
    door, sdk = DOORS[name]
    first = CLAUDE if name == "messages" else SMALL
    before, reserved, sent = owned.since(), held_since(owned, 0), owned.sim.request_count
    owned.sim.script(Fault.status(500), times=4)
    with getattr(owned, sdk)() as client, pytest.raises((anthropic.APIStatusError, openai.APIStatusError)) as caught:
        door(owned, client, model=first)
    assert caught.value.status_code == 500
    assert owned.sim.request_count - sent == held_since(owned, reserved) == 4
    assert owned.since() == before


def test_a_client_cannot_say_how_often_its_request_is_sent(owned):
    sent = owned.sim.request_count
    owned.sim.script(Fault.status(500), times=3, match=of("claude-haiku-4-5-20251001"))
    said = {"num_retries": 9, "fallbacks": [SMALL], "max_fallbacks": 9}
    with owned.gpt() as client, pytest.raises(openai.APIStatusError):
        client.chat.completions.create(
            model="claude-haiku-4-5-20251001", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=9,
            extra_body=said,
        )  # fmt: skip
    assert owned.sim.request_count - sent == 2
    owned.sim.reset()


def test_a_fallback_that_does_not_fit_is_not_sent(owned):
    sent = owned.sim.request_count
    owned.sim.script(Fault.status(500), times=2, match=of(SMALL))
    with owned.gpt("frugal") as client, pytest.raises(openai.APIStatusError) as caught:
        DOORS["chat"][0](owned, client, model=SMALL)
    assert caught.value.status_code == 500
    assert owned.sim.request_count - sent == 2
    owned.sim.reset()
