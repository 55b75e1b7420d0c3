"""Counts that cannot be read, in every host: the caller gets the answer, and what was set aside is booked."""

from __future__ import annotations

from contextlib import suppress

import openai
import pytest
from odd_counts import HOSTS, MINI, NO_COUNTS, Asker, cells

from llm_cost_middleware.simulator import Answer, Fault

pytestmark = [pytest.mark.litellm, pytest.mark.filterwarnings("ignore")]

OF_ANOTHER = ("router", "handler", "instrument")
"""Hosts in which LiteLLM or LangChain reads the answer before us, and may lose it to an error of its own."""
MADE_NUMBERS = frozenset({"text", "boolean", "fraction"})
"""What these hosts make numbers of: where they show nothing but the number, it counts."""
SHOWN = frozenset({"router claude", "router claude async", "router messages"})
"""Of these hosts, those that show the answer as it came, too."""
ERRORS = (AttributeError, KeyError, TypeError, ValueError, openai.APIError)


@pytest.fixture
def asker(sim, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    sim.responder = lambda _: Answer(text="All work and no play makes a dull answer.")
    asker = Asker(sim)
    yield asker
    asker.pipeline.close()


def asked(asker, host, counts):
    """Ask once, and return what was set aside, what was booked, and the record."""
    before, booked = asker.sim.request_count, asker.pipeline.ledger.balance("global").settled_nanousd
    asker.sim.script(Fault.odd_usage(**counts))
    needed = ERRORS if host.startswith(OF_ANOTHER) else ()
    with suppress(*needed):
        assert HOSTS[host](asker), "the answer is lost"
    assert asker.sim.request_count == before + 1
    balance = asker.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    reserved = [row.amount_nanousd for row in asker.pipeline.ledger.rows() if row.kind == "reserve"][-1]
    return reserved, balance.settled_nanousd - booked, asker.pipeline.records()[-1]


@pytest.mark.parametrize("host", HOSTS)
def test_an_unreadable_count_takes_no_answer_away_and_is_booked_at_what_was_set_aside(host, asker, soak):
    wrong = []
    for place, name in cells(host, soak=soak):
        reserved, booked, record = asked(asker, host, {place: NO_COUNTS[name]})
        if host.startswith(OF_ANOTHER) and host not in SHOWN and name in MADE_NUMBERS:
            assert 0 < booked <= reserved
        elif record.status == "exact" or booked != reserved:
            wrong.append(f"{place} {name}: {record.status}, {booked} of {reserved}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("host", HOSTS)
def test_an_answer_that_counts_nothing_is_unknown(host, asker):
    _, booked, record = asked(asker, host, {"input": 0, "output": 0})
    assert record.status != "exact"
    assert booked >= asker.sim.bill.total_nanousd


@pytest.mark.parametrize("host", [host for host in HOSTS if not host.startswith(OF_ANOTHER)])
def test_a_whole_number_may_be_written_with_a_point(host, asker):
    """Some gateways write 12.0."""
    _, booked, record = asked(asker, host, {"output": 12.0})
    assert (record.status, record.usage.output_tokens) == ("exact", 12)
    assert booked > 0


def test_a_caller_of_an_sdk_sees_what_the_sdk_makes_of_it(asker, sim):
    """Only the booking judges: the object is the SDK's own, with nothing in it that the SDK does not put there."""
    plain = openai.OpenAI(base_url=sim.openai_url, api_key="k", max_retries=0)
    seen = []
    for client in (plain, asker.wrapped("openai")):
        sim.script(Fault.odd_usage(output="12"))
        answer = client.chat.completions.create(model=MINI, messages=[{"role": "user", "content": "Count."}])
        seen.append((answer.usage.completion_tokens, set(answer.usage.model_dump()), repr(answer.usage)))
    assert seen[0] == seen[1]
    assert seen[0][0] == 12
