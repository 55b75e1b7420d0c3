"""The bill, against sums done by hand."""

import pytest

from llm_cost_middleware.simulator import Answer, Simulator, Tokens
from llm_cost_middleware.simulator.bill import cost_nanousd
from llm_cost_middleware.simulator.catalogue import catalogue

# model, tier, geo, tokens -> nano-dollars; rates in USD a million tokens beside them
BY_HAND = [
    ("claude-haiku-4-5", "standard", "", Tokens(input=1000, output=500), 1_000_000 + 2_500_000),  # 1 / 5
    ("claude-haiku-4-5", "batch", "", Tokens(input=1000, output=500), 500_000 + 1_250_000),  # half
    (
        "claude-opus-5-5",
        "standard",
        "",
        Tokens(read=10_000, write=100, write_1h=10),
        2_000_000 + 500_000 + 80_000,
    ),  # .2 5 8
    ("claude-opus-5-5", "fast", "", Tokens(input=100, output=10), 800_000 + 400_000),  # 8 / 40
    ("claude-sonnet-4-6", "standard", "us", Tokens(input=100, output=10), 330_000 + 165_000),  # 3 / 15, 1.1 times
    ("claude-haiku-5-5", "standard", "", Tokens(input=100_000, output=10), 10_000_000 + 5_000),  # .1 / .5 up to 100k
    (
        "claude-haiku-5-5",
        "standard",
        "",
        Tokens(input=1, read=100_000, output=10),
        500 + 5_000_000 + 25_000,
    ),  # .5 .05 2.5
    ("claude-haiku-4-5", "standard", "", Tokens(input=1, searches=2), 1_000 + 20_000_000),  # a cent a search
    ("gpt-5-nano", "standard", "", Tokens(input=1, read=1, output=1), 455),  # .05 + .005 + .4 = 455 nano
    ("gpt-5-nano", "flex", "", Tokens(read=1), 3),  # .0025: two and a half nano, rounded up once
    ("gpt-5-nano", "flex", "", Tokens(read=3), 8),  # seven and a half
    ("gpt-4o", "batch", "", Tokens(read=1000, output=10), 1_250_000 + 50_000),  # no cache discount in batches
    ("gpt-5.4", "standard", "", Tokens(input=272_000, output=10), 680_000_000 + 150_000),  # 2.5 / 15
    ("gpt-5.4", "standard", "", Tokens(input=272_001, output=10), 1_360_005_000 + 225_000),  # 5 / 22.5
    ("gpt-6.1-sol", "standard", "", Tokens(read=1000, write=1000), 100_000 + 2_500_000),  # .1 / 2.5
    ("gpt-5.6", "priority", "", Tokens(input=10, output=10), 80_000 + 400_000),  # 8 / 40
]


@pytest.mark.parametrize(("model", "tier", "geo", "tokens", "nano"), BY_HAND)
def test_a_response_costs_the_published_price(model, tier, geo, tokens, nano):
    assert cost_nanousd(catalogue()[model], tokens, tier=tier, geo=geo) == nano


def test_every_model_of_the_packaged_tiers_is_served():
    wanted = {
        "claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-haiku-5-5", "claude-sonnet-4-5", "claude-sonnet-4-6",
        "claude-sonnet-5", "claude-sonnet-5-5", "claude-opus-4-5", "claude-opus-4-6", "claude-opus-5",
        "claude-opus-5-5",
        "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "o3", "o4-mini", "gpt-5", "gpt-5-mini",
        "gpt-5-nano", "gpt-5.1", "gpt-5.2", "gpt-5.4", "gpt-5.4-mini", "gpt-5.6", "gpt-5.6-sol", "gpt-5.6-terra",
        "gpt-5.6-luna", "gpt-6-sol", "gpt-6-luna", "gpt-6.1-sol",
    }  # fmt: skip
    assert wanted <= catalogue().keys()


def test_lines_total_and_models_agree(sim, claude, gpt, user):
    sim.responder = lambda _: Answer(text="ok", output_tokens=7)
    claude.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=user("hello there"))
    ids = [
        gpt.chat.completions.create(model="gpt-5-mini", messages=user("hello there")).id,
        gpt.responses.create(model="gpt-5-mini", input="hello there").id,
    ]
    assert sim.bill.by_model() == {
        "claude-haiku-4-5-20251001": 10_000 + 35_000,
        "gpt-5-mini-2025-08-07": 2 * (2_250 + 14_000),
    }
    assert sim.bill.total_nanousd == 45_000 + 32_500
    assert [line.endpoint for line in sim.bill.lines] == ["messages", "chat/completions", "responses"]
    assert sim.bill.line(ids[1]).tokens == Tokens(input=9, output=7)
    with pytest.raises(KeyError):
        sim.bill.line("msg_nobody")
    sim.reset()
    assert (sim.bill.total_nanousd, sim.requests, sim.request_count) == (0, (), 0)


def test_worst_case_tokens_are_the_most_known_per_byte(user):
    import anthropic
    import openai

    with (
        Simulator(worst_case_tokenizer=True) as sim,
        anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k") as claude,
        openai.OpenAI(base_url=sim.openai_url, api_key="k") as gpt,
    ):
        said = user("é" * 50)  # 100 bytes
        assert claude.messages.count_tokens(model="claude-haiku-4-5", messages=said).input_tokens == 168 + 4 + 3
        reply = gpt.chat.completions.create(model="gpt-5-mini", messages=said)
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (100 + 3 + 3, 10 + 100)


def test_the_model_that_answered_and_the_region_are_billed(sim, claude, user):
    sim.responder = lambda _: Answer(text="ok", output_tokens=10)
    reply = claude.messages.create(
        model="claude-sonnet-4-6", max_tokens=99, messages=user("hello there"), extra_body={"inference_geo": "us"}
    )
    assert reply.usage.inference_geo == "us"
    (line,) = sim.bill.lines
    assert (line.geo, line.cost_nanousd) == ("us", 33_000 + 165_000)
