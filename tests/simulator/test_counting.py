"""Counts of the simulated provider: free, apart from messages, limited for each key, and an estimate."""

from __future__ import annotations

import anthropic
import pytest

from llm_cost_middleware.simulator import CountingRules

MODEL = "claude-haiku-4-5-20251001"


def test_a_count_is_what_a_message_is_billed_for_and_costs_nothing(sim, claude, user):
    asked = user("How many tokens are these?")
    counted = claude.messages.count_tokens(model=MODEL, messages=asked).input_tokens
    assert not sim.bill.lines
    answer = claude.messages.create(model=MODEL, max_tokens=20, messages=asked)
    assert answer.usage.input_tokens == counted


def test_each_key_has_an_allowance_that_fills_again_and_messages_do_not_draw_on_it(sim, claude, user):
    now = [0.0]
    sim.counting = CountingRules(rpm=60, now=lambda: now[0])
    for _ in range(5):
        claude.messages.count_tokens(model=MODEL, messages=user("hi"))
    with pytest.raises(anthropic.RateLimitError, match="token counts per minute"):
        claude.messages.count_tokens(model=MODEL, messages=user("hi"))
    claude.with_options(api_key="another").messages.count_tokens(model=MODEL, messages=user("hi"))
    claude.messages.create(model=MODEL, max_tokens=5, messages=user("hi"))
    now[0] += 1.0
    claude.messages.count_tokens(model=MODEL, messages=user("hi"))


def test_a_count_may_be_off_by_a_small_amount(sim, claude, user):
    exact = claude.messages.count_tokens(model=MODEL, messages=user("x" * 4_000)).input_tokens
    sim.counting = CountingRules(permille=lambda _: 970)
    assert claude.messages.count_tokens(model=MODEL, messages=user("x" * 4_000)).input_tokens == exact * 970 // 1_000
