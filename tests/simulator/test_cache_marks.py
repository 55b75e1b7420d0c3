"""Anthropic's caching rules, one test each, on Sonnet 4.6 (prefixes from 1,024 tokens)."""

import threading

import anthropic
import pytest

from llm_cost_middleware.simulator import Answer, Fault, Simulator

SONNET = "claude-sonnet-4-6"
MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
LONG = "s" * 8_000  # 2,000 tokens


def text(body, mark=None):
    return {"type": "text", "text": body, **(mark or {})}


@pytest.fixture
def ask(claude):
    def ask(content="hi", *, model=SONNET, client=claude, **more):
        messages = more.pop("messages", [{"role": "user", "content": content}])
        return client.messages.create(model=model, max_tokens=50, messages=messages, **more).usage

    return ask


def split(usage):
    """(fresh, read, 5m, 1h)"""
    made = usage.cache_creation
    assert usage.cache_creation_input_tokens == made.ephemeral_5m_input_tokens + made.ephemeral_1h_input_tokens
    return (
        usage.input_tokens,
        usage.cache_read_input_tokens,
        made.ephemeral_5m_input_tokens,
        made.ephemeral_1h_input_tokens,
    )


def test_the_first_call_writes_and_the_second_reads(ask):
    system = [text(LONG, MARK)]
    assert split(ask(system=system)) == (8, 0, 2000, 0)
    assert split(ask("other", system=system)) == (9, 2000, 0, 0)


def test_a_prefix_below_the_minimum_of_the_model_is_silently_not_cached(ask):
    short, enough = "s" * 4 * 1023, "s" * 4 * 1024
    for _ in range(2):
        assert split(ask(system=[text(short, MARK)])) == (8 + 1023, 0, 0, 0)
    assert split(ask(system=[text(enough, MARK)])) == (8, 0, 1024, 0)
    for _ in range(2):  # Haiku 4.5 wants 4,096
        assert split(ask(model="claude-haiku-4-5", system=[text(enough, MARK)])) == (8 + 1024, 0, 0, 0)


def test_an_entry_lapses_after_five_minutes_counted_from_the_start_of_its_last_read(sim, ask):
    system = [text(LONG, MARK)]
    ask(system=system)
    for _ in range(3):
        sim.clock.advance(299)
        assert split(ask(system=system))[1] == 2000
    sim.clock.advance(300)
    assert split(ask(system=system)) == (8, 0, 2000, 0)


def test_an_hour_entry_expires_after_an_hour_and_is_reported_separately(sim, ask):
    system = [text(LONG, HOUR)]
    assert split(ask(system=system)) == (8, 0, 0, 2000)
    sim.clock.advance(3599)
    assert split(ask(system=system)) == (8, 2000, 0, 0)
    sim.clock.advance(3600)
    assert split(ask(system=system)) == (8, 0, 0, 2000)


def test_both_lifetimes_in_one_request_are_split_at_the_last_hour_mark(sim, ask):
    body = {
        "system": [text(LONG, HOUR)],
        "messages": [{"role": "user", "content": [text("u" * 4_000, MARK), text("end")]}],
    }
    assert split(ask(**body)) == (3 + 1, 0, 1000 + 4, 2000)
    sim.clock.advance(1000)
    assert split(ask(**body)) == (3 + 1, 2000, 1000 + 4, 0)


def test_the_order_is_tools_then_system_then_messages(ask):
    tool = {"name": "t", "description": "d" * 8_000, "input_schema": {"type": "object"}}
    first = ask(tools=[tool | MARK], system=[text("one")])
    assert first.cache_creation_input_tokens > 2000
    # another system prompt leaves the tools' entry intact; another tool leaves nothing
    assert ask(tools=[tool | MARK], system=[text("two")]).cache_read_input_tokens == first.cache_creation_input_tokens
    assert ask(tools=[tool | {"name": "u"} | MARK], system=[text("one")]).cache_read_input_tokens == 0
    # a mark on the system prompt covers the tools before it, and finds their entry
    both = ask(tools=[tool], system=[text(LONG, MARK)])
    assert (both.cache_read_input_tokens, both.cache_creation_input_tokens) == (first.cache_creation_input_tokens, 2000)
    assert ask(tools=[tool | {"name": "v"}], system=[text(LONG, MARK)]).cache_read_input_tokens == 0


def test_one_changed_byte_breaks_the_prefix(ask):
    ask(system=[text(LONG, MARK)])
    assert ask(system=[text("t" + LONG[1:], MARK)]).cache_read_input_tokens == 0
    assert ask(system=[text(LONG), text("more", MARK)]).cache_read_input_tokens == 2000
    assert ask(system=[text("x"), text(LONG, MARK)]).cache_read_input_tokens == 0


def test_key_order_inside_a_schema_counts_and_outside_does_not(ask):
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    turned = {"properties": {"b": {"type": "string"}, "a": {"type": "string"}}, "type": "object"}
    tool = {"name": "t", "description": "d" * 8_000, "input_schema": schema}
    written = ask(tools=[tool | MARK]).cache_creation_input_tokens
    assert ask(tools=[dict(reversed(tool.items())) | MARK]).cache_read_input_tokens == written
    assert ask(tools=[tool | {"input_schema": turned} | MARK]).cache_read_input_tokens == 0


def test_a_string_and_a_single_text_block_are_the_same_prompt(ask):
    ask(messages=[{"role": "user", "content": [text(LONG, MARK)]}])
    history = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "yes"}]
    after = ask(messages=[*history, {"role": "user", "content": [text("and", MARK)]}])
    assert after.cache_read_input_tokens == 2004


def test_caches_are_kept_apart_by_model_and_by_key(sim, ask, claude):
    system = [text(LONG, MARK)]
    ask(system=system)
    assert ask(system=system, model="claude-sonnet-5").cache_read_input_tokens == 0
    with claude.with_options(api_key="another") as other:
        assert ask(system=system, client=other).cache_read_input_tokens == 0
        assert ask(system=system, client=other).cache_read_input_tokens == 2000


def test_a_mark_looks_back_twenty_blocks_its_own_included(ask):
    def conversation(blocks, mark_at):
        body = [text(LONG), *(text(f"turn {at}") for at in range(1, blocks))]
        body[mark_at] = body[mark_at] | MARK
        return [{"role": "user", "content": body}]

    ask(messages=conversation(1, 0))
    assert ask(messages=conversation(20, 19)).cache_read_input_tokens == 2004
    assert ask(messages=conversation(40, 20)).cache_read_input_tokens > 2004  # one block on from the entry at 19
    fresh = [text("z" * 8_000), *(text(f"turn {at}") for at in range(1, 21))]
    ask(messages=[{"role": "user", "content": [fresh[0] | MARK]}])
    assert ask(messages=[{"role": "user", "content": [*fresh[:-1], fresh[-1] | MARK]}]).cache_read_input_tokens == 0


def test_an_intermediate_mark_bridges_a_long_turn(ask):
    body = [text(LONG), *(text(f"turn {at}") for at in range(1, 31))]
    ask(messages=[{"role": "user", "content": [body[0] | MARK]}])
    bridged = [*body[:15], body[15] | MARK, *body[16:-1], body[-1] | MARK]
    usage = ask(messages=[{"role": "user", "content": bridged}])
    assert usage.cache_read_input_tokens == 2004


def test_automatic_caching_marks_the_last_block_and_takes_one_of_the_four(ask, claude):
    history = [{"role": "user", "content": LONG}]
    assert split(ask(messages=history, cache_control={"type": "ephemeral"})) == (3, 0, 2004, 0)
    longer = [*history, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and then"}]
    usage = ask(messages=longer, cache_control={"type": "ephemeral"})
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (2004, 5 + 6)


@pytest.mark.parametrize(
    "change",
    [
        {"tool_choice": {"type": "any"}},
        {"thinking": {"type": "adaptive"}},
        {"output_config": {"effort": "low"}},
        {"image": True},
    ],
    ids=str,
)
def test_what_changes_only_the_messages_keeps_the_system_entry(ask, change):
    tool = {"name": "t", "input_schema": {"type": "object"}}
    parts = [text(LONG, MARK)]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    base = {"tools": [tool], "system": [text("s" * 4_400, MARK)]}
    change = dict(change)
    after_parts = [*parts, image] if change.pop("image", None) else parts
    ask(**base, messages=[{"role": "user", "content": [*parts, text("q")]}])
    again = ask(**base, messages=[{"role": "user", "content": [*parts, text("q")]}])
    assert again.cache_creation_input_tokens == 0
    usage = ask(**base, **change, messages=[{"role": "user", "content": [*after_parts, text("q")]}])
    assert 1100 <= usage.cache_read_input_tokens < 2000
    assert usage.cache_creation_input_tokens == 2004


def test_an_entry_cannot_be_read_before_the_answer_that_wrote_it_has_begun(sim, claude, ask):
    sim.latency_s = 0.3
    system = [text(LONG, MARK)]
    usages = []
    threads = [threading.Thread(target=lambda: usages.append(ask(system=system))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [usage.cache_creation_input_tokens for usage in usages] == [2000] * 4
    assert ask(system=system).cache_read_input_tokens == 2000


def test_a_refused_request_writes_nothing(sim, claude, ask):
    sim.script(Fault.status(529))
    with pytest.raises(Exception, match="Overloaded"):
        ask(system=[text(LONG, MARK)])
    assert ask(system=[text(LONG, MARK)]).cache_read_input_tokens == 0


def test_cache_tokens_are_billed_at_their_own_rates():
    with Simulator(responder=lambda _: Answer(output_tokens=10)) as sim:
        with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0) as client:
            for mark in (MARK, MARK, HOUR):
                start = LONG if mark is MARK else "t" + LONG
                client.messages.create(
                    model=SONNET,
                    max_tokens=50,
                    system=[text(start, mark)],
                    messages=[{"role": "user", "content": "hi"}],
                )
        # 8 fresh tokens at 3, 10 out at 15; 2,000 at 3.75, then at 0.30; 2,001 at 6: USD a million
        assert [line.cost_nanousd for line in sim.bill.lines] == [
            24_000 + 7_500_000 + 150_000,
            24_000 + 600_000 + 150_000,
            24_000 + 12_006_000 + 150_000,
        ]


TOOL = {"name": "t", "description": "d" * 8_000, "input_schema": {"type": "object"}}


def test_a_deferred_tool_takes_no_mark_and_is_no_part_of_the_prefix(ask):
    later = {**TOOL, "name": "late", "defer_loading": True}
    with pytest.raises(anthropic.BadRequestError, match="cannot have both defer_loading=true and cache_control"):
        ask(tools=[TOOL, later | MARK])
    written = ask(tools=[TOOL | MARK, later]).cache_creation_input_tokens
    assert ask(tools=[TOOL | MARK, later, {**later, "name": "later"}]).cache_read_input_tokens == written


def test_the_automatic_mark_takes_one_of_the_four(ask):
    tools = [{**TOOL, "name": f"t{at}"} | MARK for at in range(3)]
    ask(tools=tools, cache_control=MARK["cache_control"])
    with pytest.raises(anthropic.BadRequestError, match="Found 5"):
        ask(tools=tools, system=[text("s", MARK)], cache_control=MARK["cache_control"])


def test_marks_inside_tool_results_and_on_server_tools_count(ask):
    call = {"type": "tool_use", "id": "c", "name": "t", "input": {}}
    inside = [text(str(at), MARK) for at in range(3)]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": inside}]},
    ]
    search = {"type": "web_search_20250305", "name": "web_search"} | MARK
    ask(tools=[TOOL, search], messages=messages)
    with pytest.raises(anthropic.BadRequestError, match="Found 5"):
        ask(tools=[TOOL | MARK, search], messages=messages)


def test_the_automatic_mark_must_ask_for_what_the_last_block_asks_for(ask):
    ask([text("q", HOUR)], cache_control=HOUR["cache_control"])
    with pytest.raises(anthropic.BadRequestError, match="different ttl"):
        ask([text("q", MARK)], cache_control=HOUR["cache_control"])
