from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llm_cost_middleware.prompt_cache import digests
from llm_cost_middleware.prompt_cache.layout import read_layout, tracked_boundaries
from llm_cost_middleware.request import BlockRef, CallRequest, Message, Part, ServerTool, Tool

NUMBERS = count(1)
QUESTION = (Message("user", (Part("text", "q" * 600),)),)


def refs(layout):
    return [each.ref for each in layout.boundaries]


def test_a_prompt_is_cut_after_tools_system_first_turn_and_turns_and_of_all_answers_after_the_latest(conversation):
    layout = read_layout(conversation(3, tools=2))
    assert refs(layout) == [
        BlockRef("tools", 0, 1),
        BlockRef("system", 0, 0),
        BlockRef("messages", 0, 0),
        BlockRef("messages", 2, 0),
        BlockRef("messages", 3, 0),
        BlockRef("messages", 4, 0),
    ]
    assert (layout.head, layout.first_turn, layout.previous, layout.answer) == (2, 3, 3, 4)
    assert [each.number for each in layout.boundaries] == [1, 2, 3, 5, 6, 7]


def test_an_answer_that_hosts_rebuild_is_not_cut(conversation):
    """Messages and chats keep a mark on the text of an answer, and none where it holds more than text."""
    asked = conversation(2)
    assert read_layout(asked).answer is not None
    assert read_layout(asked._replace(endpoint="responses")).answer is None
    *before, answer, last = asked.messages
    for part in (Part("tool_use", "{}"), Part("thinking", "Hm.")):
        mixed = Message("assistant", (*answer.parts, part))
        assert read_layout(asked._replace(messages=(*before, mixed, last))).answer is None


def test_the_end_of_a_request_is_the_previous_end_of_the_next_one(conversation):
    for turns in range(1, 20):
        now, following = read_layout(conversation(turns)), read_layout(conversation(turns + 1))
        assert following.boundaries[following.previous].fingerprint == now.boundaries[-1].fingerprint


def test_sizes_grow_and_the_last_boundary_spans_the_prompt(conversation):
    layout = read_layout(conversation(5))
    ends = [each.end for each in layout.boundaries]
    assert ends == sorted(set(ends))
    assert layout.size == ends[-1]
    assert layout.tokens == layout.size // 4


def test_a_short_request_has_no_layout():
    layout = read_layout(CallRequest("anthropic", "m", (Message("user", (Part("text", "hello"),)),)))
    assert layout.boundaries == ()
    assert layout.traffic_key == layout.conversation_key == b""
    assert tracked_boundaries(layout) == []


def test_an_image_makes_even_a_short_request_worth_a_look():
    request = CallRequest("anthropic", "m", (Message("user", (Part("image", media={"bytes": 9}),)),))
    assert len(read_layout(request).boundaries) == 1


def test_stages(conversation):
    assert read_layout(conversation(1)).stage == "first"
    assert read_layout(conversation(1, tools=1)).stage == "first_with_tools"
    assert read_layout(conversation(2)).stage == "chat"
    assert read_layout(conversation(2, results=True)).stage == "agent"


def test_one_changed_byte_changes_every_fingerprint_behind_it(conversation):
    one, other = read_layout(conversation(2)), read_layout(conversation(2, system="T" + "S" * 7_999))
    assert all(a.fingerprint != b.fingerprint for a, b in zip(one.boundaries, other.boundaries, strict=True))


def test_reordered_tools_are_another_prefix(conversation):
    request = conversation(1, tools=3)
    swapped = CallRequest(request.provider, request.model, request.messages, request.tools[::-1])
    assert read_layout(request).boundaries[0].fingerprint != read_layout(swapped).boundaries[0].fingerprint


def test_a_changed_tool_choice_keeps_the_system_prompt_and_loses_the_messages(conversation):
    one = read_layout(conversation(2, params={"tool_choice": "auto"}))
    other = read_layout(conversation(2, params={"tool_choice": "any"}))
    same = [a.fingerprint == b.fingerprint for a, b in zip(one.boundaries, other.boundaries, strict=True)]
    assert same == [True, False, False, False]


def test_block_edges_matter():
    def of(*texts):
        parts = tuple(Part("text", text) for text in texts)
        return read_layout(CallRequest("anthropic", "m", (Message("user", parts),))).boundaries[-1].fingerprint

    assert of("a" * 600, "b") != of("a" * 599, "ab")


def test_nothing_ends_on_thinking_or_empty_text():
    parts = (Part("text", "x" * 900), Part("thinking", "hm"), Part("text", "  "))
    layout = read_layout(CallRequest("anthropic", "m", (Message("user", parts),)))
    assert refs(layout) == [BlockRef("messages", 0, 0)]


def test_marks_of_the_caller_are_seen_wherever_they_stand():
    messages = (
        Message("system", (Part("text", "s" * 600, "1h"),)),
        Message("user", (Part("text", "q"),)),
        Message("assistant", (Part("tool_use", "{}", "5m"),)),
        Message("user", (Part("tool_result", "r", "5m"), Part("text", "more"))),
    )
    layout = read_layout(CallRequest("anthropic", "m", messages, (Tool("t", "{}", "1h"),)))
    assert [(each.ref.section, each.mark, each.markable) for each in layout.boundaries] == [
        ("tools", "1h", True),
        ("system", "1h", True),
        ("messages", None, True),
        ("messages", "5m", False),
        ("messages", "5m", True),
        ("messages", None, True),
    ]


def test_the_mark_for_the_tools_stands_on_the_last_that_takes_one(conversation):
    def marked(*server_tools, **more):
        found = [
            each.ref.block
            for each in read_layout(conversation(1, tools=2, server_tools=server_tools, **more)).boundaries
            if each.ref.section == "tools"
        ]
        return found[-1] if found else None

    assert marked() == 1
    assert marked(ServerTool("web_search_20250305", place=2)) == 2
    assert marked(ServerTool("tool_search_tool_regex_20251119", place=2)) == 1
    assert marked(ServerTool("mcp")) == 1  # not in the list of tools at all
    assert marked(ServerTool("web_search", place=2), endpoint="chat.completions") == 1


def test_a_deferred_tool_is_no_part_of_the_prompt():
    tools = tuple(Tool(f"t{at}", f"{at}" * 600, place=at, deferred=at > 1) for at in range(4))
    some, all_ = (read_layout(CallRequest("anthropic", "m", QUESTION, each)) for each in (tools[:2], tools))
    assert some.boundaries == all_.boundaries
    assert [each.ref for each in all_.boundaries] == [BlockRef("tools", 0, 1), BlockRef("messages", 0, 0)]


def test_every_mark_of_the_caller_is_counted_in_the_order_of_the_prompt():
    tools = (Tool("t", "{}", "1h", place=1),)
    searches = (ServerTool("web_search_20250305", None, "1h", place=0),)
    messages = (
        Message("system", (Part("text", "s" * 600, "1h"),)),
        Message("user", (Part("tool_result", "r", "5m", inner_marks=("1h", "5m")),)),
    )
    layout = read_layout(CallRequest("anthropic", "m", messages, tools, server_tools=searches))
    found = [(each.number, each.ttl) for each in layout.callers]
    assert found == [(0, "1h"), (1, "1h"), (2, "1h"), (3, "1h"), (3, "5m"), (3, "5m")]


def test_a_long_list_of_documents_is_cut_at_its_first_blocks_and_its_end():
    parts = tuple(Part("text", f"{at}" * 100) for at in range(30))
    layout = read_layout(CallRequest("anthropic", "m", (Message("user", parts),)))
    assert [each.ref.block for each in layout.boundaries] == [*range(8), 29]


def test_only_the_latest_turns_are_cut(conversation):
    layout = read_layout(conversation(40))
    assert len(layout.boundaries) == 2 + 4 + 1
    assert layout.previous == len(layout.boundaries) - 3


def test_a_prefilled_answer_is_not_a_turn(conversation):
    request = conversation(1)
    prefilled = CallRequest("anthropic", "m", (*request.messages, Message("assistant", (Part("text", "{"),))))
    layout = read_layout(prefilled)
    assert layout.previous is None
    assert layout.boundaries[-1].ref == BlockRef("messages", 0, 0)


def test_reading_changes_nothing(conversation):
    request = conversation(3, tools=2, params={"tool_choice": {"type": "auto"}})
    before = repr(request)
    read_layout(request)
    assert repr(request) == before


def test_parameters_that_invalidate_nothing_tell_no_prefixes_apart(conversation):
    """Whoever sets some other parameter shares the head with one who sets none; thinking changes what follows it."""
    plain = read_layout(conversation(1))
    other = read_layout(conversation(1, params={"prompt_cache_key": "mine"}))
    thinking = read_layout(conversation(1, params={"thinking": {"type": "enabled", "budget_tokens": 1_024}}))
    assert [each.fingerprint for each in other.boundaries] == [each.fingerprint for each in plain.boundaries]
    assert thinking.boundaries[0].fingerprint == plain.boundaries[0].fingerprint
    assert thinking.boundaries[-1].fingerprint != plain.boundaries[-1].fingerprint


BLOCKS = st.tuples(
    st.sampled_from(["text", "tool_use", "image"]),
    st.sampled_from(["", "word", "w\u00f6rd" * 200, "x" * 600]),
    st.sampled_from([None, "5m"]),
    st.sampled_from([{}, {"bytes": 3}]),
)


@given(st.lists(st.lists(BLOCKS, max_size=3), min_size=1, max_size=9), st.integers(0, 2), st.booleans())
def test_what_is_shared_changes_no_more_than_the_fingerprints_of_later_turns(said, systems, tools):
    roles = ["system"] * systems + ["user", "assistant"] * len(said)
    messages = tuple(
        Message(role, tuple(Part(*block) for block in blocks)) for role, blocks in zip(roles, said, strict=False)
    )
    request = CallRequest("anthropic", "m", messages, (Tool("t", "{}" * 300),) * tools)
    shared, own = read_layout(request), read_layout(request, shared=False)
    same = own.first_turn or own.head
    assert own.boundaries[:same] == shared.boundaries[:same]
    assert [replace(each, fingerprint=b"") for each in own.boundaries] == [
        replace(each, fingerprint=b"") for each in shared.boundaries
    ]
    assert replace(own, boundaries=()) == replace(shared, boundaries=())
    digests = {
        each.fingerprint: other.fingerprint for each, other in zip(own.boundaries, shared.boundaries, strict=True)
    }
    assert len(digests) == len({each.fingerprint for each in shared.boundaries})


def test_a_long_conversation_of_which_no_earlier_turn_can_be_cut_is_read():
    """Turns that are empty, or hold what takes no mark, as results of a search."""
    for first, before in [(None, None), (Part("other", "found"), Part("other", "found")), (None, Part("other", ""))]:
        turns = [() if part is None else (part,) for part in (first, before)]
        roles = ("user", "assistant", "user", "assistant", "user")
        parts = (turns[0], (Part("text", "x" * 600),), turns[1], (Part("text", "ok"),), (Part("text", "go"),))
        messages = tuple(map(Message, roles, parts))
        layout = read_layout(CallRequest("openai", "m", messages))
        assert layout.previous is None
        assert layout.boundaries[-1].ref == BlockRef("messages", 4, 0)
        system = [Message("system", (Part("text", "s" * 200),)) for _ in range(3)]
        layout = read_layout(CallRequest("anthropic", "m", (*system, *messages)))
        assert layout.previous is None, "a block of the system prompt is no end of a turn"


@pytest.mark.parametrize("shared", [True, False])
def test_a_changed_word_or_picture_in_a_later_turn_changes_the_fingerprints_behind_it_alone(conversation, shared):
    asked = conversation(4)
    before = read_layout(asked, shared=shared)
    at = len(asked.messages) - 3
    for part in (
        Part("text", "other"),
        Part("image", "", None, {"digest": "1"}),
        Part("image", "", None, {"digest": "2"}),
    ):
        changed = (*asked.messages[:at], Message("user", (part,)), *asked.messages[at + 1 :])
        after = read_layout(asked._replace(messages=changed), shared=shared)
        kept = [
            one.fingerprint == other.fingerprint for one, other in zip(before.boundaries, after.boundaries, strict=True)
        ]
        assert kept == [each.ref.message < at - 1 or each.ref.section != "messages" for each in before.boundaries]
        before = after


@pytest.mark.parametrize("shared", [True, False])
def test_a_mark_inside_a_message_is_told_apart_by_what_stands_before_it(conversation, shared):
    def marked(first, second):
        last = Message("user", (Part("text", first, "5m"), Part("text", second)))
        return read_layout(conversation(2)._replace(messages=(*conversation(2).messages[:-1], last)), shared=shared)

    one, other, third = marked("a", "b"), marked("a", "c"), marked("d", "b")
    assert [
        each.fingerprint == more.fingerprint for each, more in zip(one.boundaries, other.boundaries, strict=True)
    ] == [
        *[True] * (len(one.boundaries) - 1),
        False,
    ]
    assert one.boundaries[-2].fingerprint != third.boundaries[-2].fingerprint


@given(st.lists(st.lists(BLOCKS, min_size=1, max_size=2), min_size=2, max_size=9), st.booleans(), st.booleans())
def test_a_conversation_that_is_sent_again_is_read_as_one_that_never_was(said, tools, shared):
    roles = ["system"] + ["user", "assistant"] * len(said)
    messages = tuple(
        Message(role, tuple(Part(*block) for block in blocks)) for role, blocks in zip(roles, said, strict=False)
    )
    for end in range(1, len(messages) + 1):  # each turn of it
        request = CallRequest("anthropic", "m", messages[:end], (Tool("t", "{}" * 300),) * tools)
        again = read_layout(request, shared=shared)
        # Nothing was ever kept at this density.
        new = read_layout(request, tokens_per_byte=0.25 + next(NUMBERS) * 1e-9, shared=shared)
        assert replace(again, boundaries=(), tokens=0, tokens_per_byte=0) == replace(
            new, boundaries=(), tokens=0, tokens_per_byte=0
        )
        assert [replace(each, tokens=0) for each in again.boundaries] == [
            replace(each, tokens=0) for each in new.boundaries
        ]


def test_messages_end_where_they_end_in_a_conversation_that_is_sent_again():
    text = Part("text", "q" * 600)
    answer, question = Message("assistant", (text,)), Message("user", (text,))
    begun = [
        (Message("user", (text, text)), question), (question, Message("user", (text, text))),
        (Message("user", (text, text, text)), Message("user", ())), (Message("user", ()), Message("user", (text,) * 3)),
    ]  # fmt: skip
    found = {
        read_layout(CallRequest("openai", "m", (*first, answer, question))).boundaries[-1].fingerprint
        for first in begun
    }
    assert len(found) == len(begun)


def test_a_long_beginning_is_not_kept(conversation, monkeypatch):
    """Chat logs and items of a long first turn would take a hundred kilobytes each."""
    monkeypatch.setattr(digests, "_known", kept := {})
    said = tuple(Message("user", (Part("text", f"{number} " * 300),)) for number in range(500))
    read_layout(conversation(1)._replace(messages=said), shared=True)
    assert sum(len(one.boundaries) for one in kept.values()) <= 64
    read_layout(conversation(3, tools=2), shared=True)
    assert kept
