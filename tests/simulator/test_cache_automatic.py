"""OpenAI's caching rules, one test each."""

import openai
import pytest

OLD, NEW = "gpt-5-mini", "gpt-5.6-luna"
HEAD = [{"role": "system", "content": "s" * 4_800}]  # 1,203 tokens with its message


def counted(usage):
    details = usage.prompt_tokens_details
    return usage.prompt_tokens, details.cached_tokens, getattr(details, "cache_write_tokens", None)


@pytest.fixture
def ask(gpt):
    def ask(content, *, model=OLD, client=gpt, head=HEAD, **more):
        messages = [*head, {"role": "user", "content": content}]
        return counted(client.chat.completions.create(model=model, messages=messages, **more).usage)

    return ask


def test_the_longest_common_prefix_is_read_in_steps_of_128(ask):
    assert ask("a" * 400) == (1203 + 103 + 3, 0, None)
    assert ask("b" * 400) == (1309, 1152, None)
    assert ask("b" * 400) == (1309, 1280, None)
    assert ask("b" * 200 + "c" * 200) == (1309, 1152, None)


def test_a_prefix_below_1024_tokens_is_not_cached(ask):
    head = [{"role": "system", "content": "s" * 3_600}]
    for _ in range(2):
        assert ask("a", head=head)[1] == 0


def test_the_last_token_is_never_read(ask):
    head = [{"role": "system", "content": "s" * 4 * (1024 - 3 - 3 - 3 - 1)}]
    for _ in range(2):
        assert ask("abcd", head=head) == (1024, 0, None)


def test_entries_live_a_day_or_ten_minutes_in_memory(sim, ask):
    ask("a")
    sim.clock.advance(86_399)
    assert ask("a")[1] == 1152
    sim.clock.advance(86_400)
    assert ask("a")[1] == 0
    head = [{"role": "system", "content": "m" * 4_800}]
    ask("a", head=head, prompt_cache_retention="in_memory")
    sim.clock.advance(600)
    assert ask("a", head=head)[1] == 0


def test_the_cache_key_and_the_api_key_steer_where_a_prefix_is_found(gpt, ask):
    ask("a", prompt_cache_key="one")
    assert ask("b", prompt_cache_key="one")[1] == 1152
    assert ask("b", prompt_cache_key="two")[1] == 0
    with gpt.with_options(api_key="another") as other:
        assert ask("b", client=other, prompt_cache_key="one")[1] == 0


def test_tools_and_schemas_stand_before_the_messages(ask):
    tool = {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}
    ask("a")
    assert ask("b", tools=[tool])[1] == 0
    assert ask("c", tools=[tool])[1] == 1152


def test_both_endpoints_agree(gpt):
    for read in (0, 1152):
        usage = gpt.responses.create(model=OLD, instructions="s" * 4_800, input="a").usage
        assert usage.input_tokens_details.cached_tokens == read


def test_from_gpt_5_6_on_writes_are_paid_and_end_at_the_implicit_breakpoint(ask):
    assert ask("a" * 400, model=NEW) == (1309, 0, 1306)
    assert ask("a" * 400, model=NEW) == (1309, 1306, 0)
    # the system message's end is a boundary, but nothing was written there
    assert ask("b" * 400, model=NEW) == (1309, 0, 1306)


def test_a_growing_conversation_reads_its_past_and_writes_its_growth(ask):
    ask("a", model=NEW)
    turn = [*HEAD, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 40}]
    assert ask("c" * 40, model=NEW, head=turn) == (1203 + 4 + 13 + 13 + 3, 1207, 26)


def test_explicit_breakpoints_are_written_beside_the_implicit_one(gpt, ask):
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    head = [{"role": "system", "content": [{"type": "text", "text": "s" * 4_800} | mark]}]
    assert ask("a" * 400, model=NEW, head=head) == (1309, 0, 1306)
    assert ask("b" * 400, model=NEW, head=head) == (1309, 1203, 103)


def test_explicit_mode_switches_the_implicit_breakpoint_off(ask):
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    head = [{"role": "system", "content": [{"type": "text", "text": "s" * 4_800} | mark]}]
    only = {"prompt_cache_options": {"mode": "explicit"}, "model": NEW}
    assert ask("a", head=head, **only) == (1203 + 4 + 3, 0, 1203)
    assert ask("b", head=head, **only) == (1210, 1203, 0)
    for _ in range(2):
        assert ask("c", **only) == (1210, 0, 0)


def test_no_more_than_four_breakpoints_are_written(ask):
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    parts = [{"type": "text", "text": f"{at}" * 4_800} | mark for at in range(6)]
    only = {"prompt_cache_options": {"mode": "explicit"}, "model": NEW}
    ask("a", head=[{"role": "system", "content": parts}], **only)
    read = [ask("b", head=[{"role": "system", "content": parts[:count]}], **only)[1] for count in (1, 2, 3)]
    assert read == [0, 1203, 3603]  # the first two parts were left out; asking for them wrote what they had


def test_a_breakpoint_expires_after_thirty_minutes(sim, ask):
    ask("a", model=NEW)
    sim.clock.advance(1799)
    assert ask("a", model=NEW)[1] == 1207
    sim.clock.advance(1800)
    assert ask("a", model=NEW)[1] == 0


def test_breakpoints_and_their_options_are_unknown_to_older_models(gpt, ask):
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    head = [{"role": "system", "content": [{"type": "text", "text": "s"} | mark]}]
    with pytest.raises(openai.BadRequestError, match="prompt_cache_breakpoint"):
        ask("a", head=head)
    with pytest.raises(openai.BadRequestError, match="prompt_cache_options"):
        ask("a", prompt_cache_options={"mode": "implicit"})


def test_paid_writes_and_reads_are_billed_at_their_own_rates(sim, ask):
    for _ in range(2):
        ask("a" * 400, model=NEW, max_completion_tokens=1)
    # luna: 3 fresh at 0.2, 1 out at 1.2; 1,306 at 0.25, then at 0.02: USD a million
    assert [line.cost_nanousd for line in sim.bill.lines] == [600 + 326_500 + 1200, 600 + 26_120 + 1200]
