from __future__ import annotations

import subprocess
import sys

import pytest

from llm_cost_middleware.routing.sites import PLAIN, call_site, read_site


def test_the_callers_own_name_wins(ask):
    assert call_site(ask(system="You are helpful.", context={"call_site": "invoices"})) == "invoices"


def test_a_call_without_distinguishing_features_is_plain(ask):
    assert call_site(ask("anything")) == call_site(ask("something else")) == PLAIN


def test_dates_counters_and_ids_do_not_move_a_site(ask):
    one = ask("a", system="Today is 2026-11-05. Session 8f14e45f-ceea-467f-a0d1-1b2c3d4e5f60. Extract the total.")
    two = ask("b", system="Today is 2027-01-31. Session 01234567-89ab-cdef-0123-456789abcdef. Extract the total.")
    assert call_site(one) == call_site(two)


@pytest.mark.parametrize(
    "template",
    [
        "You help {} of {} Ltd. Be brief.",
        "You are the assistant of {}.\nCustomer: {}\nAnswer in JSON.",
        'The user is called "{}". Today is a day for {}.',
        "Write to {} of {} <who@example.org>, in the third person.",
    ],
)
def test_a_name_in_the_instructions_makes_no_new_site(ask, template):
    names = [
        ("Anna Schmidt", "Berg"),
        ("Zo\u00eb", "M\u00fcller"),
        ("Jean-Luc O'Brien", "McDonald"),
    ]
    assert len({read_site(ask(system=template.format(*pair))) for pair in names}) == 1


@pytest.mark.parametrize("day", ["Monday, 3 March", "Thursday, 12 November"])
def test_a_weekday_makes_no_new_site(ask, day):
    assert call_site(ask(system=f"Today is {day}. Plan.")) == call_site(ask(system="Today is Sunday, 1 May. Plan."))


def test_templates_that_differ_in_other_words_stay_apart(ask):
    templates = ["Extract the Total.", "Translate the Total.", "# Sum\nReply in JSON.", "# Sum\nReply in YAML."]
    assert len({call_site(ask(system=system)) for system in templates}) == len(templates)


def test_a_name_that_begins_a_sentence_leaves_the_group_of_sites_alike(ask):
    one, two = (read_site(ask(system=f"{name} wants a summary.")) for name in ("Anna", "Bo Berg"))
    assert one.groups == two.groups
    other = read_site(ask(system="Anna wants a poem."))
    assert other.groups[0] != one.groups[0]
    assert other.groups[1] == one.groups[1]  # no tools, no schema: the same task


def test_the_callers_name_keeps_the_groups_of_its_template(ask):
    named = read_site(ask(system="Extract the total.", context={"call_site": "invoices"}))
    plain = read_site(ask(system="Extract the total."))
    assert named == ("invoices", plain.groups)
    assert read_site(ask("x", context={"call_site": "invoices"})) == ("invoices", ())


def test_another_prompt_tool_schema_or_tag_is_another_site(ask):
    requests = [
        ask(system="Extract the total."),
        ask(system="Write a poem."),
        ask(system="Extract the total.", tools=("search",)),
        ask(system="Extract the total.", output_schema='{"type":"object"}'),
        ask(system="Extract the total.", context={"tags": ("nightly",)}),
    ]
    assert len({call_site(request) for request in requests}) == len(requests)


def test_the_order_of_tools_and_tags_does_not_matter(ask):
    one = ask(tools=("search", "book"), context={"tags": ("a", "b")})
    two = ask(tools=("book", "search"), context={"tags": ("b", "a")})
    assert call_site(one) == call_site(two)


def test_a_site_is_the_same_in_another_process(ask):
    program = (
        "from llm_cost_middleware.request import *\n"
        "from llm_cost_middleware.routing.sites import call_site\n"
        "m = (Message('system', (Part('text', 'Extract the total.'),)), Message('user', (Part('text', 'x'),)))\n"
        "print(call_site(CallRequest('anthropic', 'm', m)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert told == call_site(ask(system="Extract the total."))


def test_nothing_of_the_prompt_is_kept(ask):
    from llm_cost_middleware.routing import sites

    call_site(ask(system="a very secret instruction"))
    assert "secret" not in repr(vars(sites)["_sites"])
