"""Routing inside agent conversations: what the simulated provider bills with and without the arithmetic of switching.

A router that judges each prompt by itself keeps changing its mind inside a conversation; here it does so at random,
the worst that such a router can do to a cache. "Per task" is the same router, handed the conversation's model and what
its warm cache is worth. The simulator bills both, and its own rates judge every switch that is made for its price.

A switch up that the size rule demands is made for the answer, not for the price: what it costs beside staying is shown
for itself.
"""

from __future__ import annotations

import gzip
import json
import random

import pytest

from llm_cost_middleware.request import CallContext, CallRequest, Message, ModelRef, Part, Tool
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide
from llm_cost_middleware.routing.sites import call_site

pytestmark = pytest.mark.data

FLEET = [
    Candidate(ModelRef("openai", "gpt-5-mini"), 0, 250_000, 2_000_000, 400_000, 128_000, frozenset({"tools"})),
    Candidate(ModelRef("openai", "gpt-5.1"), 1, 1_250_000, 10_000_000, 400_000, 128_000, frozenset({"tools"})),
]
RATES = {candidate.target.model: candidate for candidate in FLEET}


def as_request(messages, tools, name):
    said = tuple(
        Message(message["role"], (Part("text", f"{message.get('content')} {json.dumps(message.get('tool_calls'))}"),))
        for message in messages
    )
    defined = tuple(Tool(tool["function"]["name"], json.dumps(tool)) for tool in tools)
    return CallRequest(
        "openai", "gpt-5.1", said, tools=defined, endpoint="chat.completions", context=CallContext(conversation=name)
    )


def play(sim, client, conversations, tools, *, per_task, policy):
    """Play conversations; returns for every call (target before, decision, bill line before, bill line)."""
    history, rng, calls = SiteHistory(), random.Random(0), []
    for number, conversation in enumerate(conversations):
        sticky, before, warm = None, None, {}
        messages = [dict(message) for message in conversation["messages"]]
        messages[0]["content"] = f"Conversation {number}. " + messages[0]["content"]  # a cache of its own
        for end, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            request = as_request(messages[:end], tools, str(number))
            context = RoutingContext(
                f"{number}-{end}", 0.0, rng,
                history=history, sticky=sticky if per_task else None, affinity=warm if per_task else {},
            )  # fmt: skip
            decision = decide(policy, FLEET, request, read_features(request), context)
            client.chat.completions.create(
                model=decision.target.model,
                messages=messages[:end],
                tools=tools,
                extra_headers={"x-sim-conversation": str(number)},
            )
            line = sim.bill.lines[-1]
            history.observe(call_site(request), decision.target, line.tokens.output)
            calls.append((sticky, decision, before, line))
            rates = RATES[decision.target.model]
            warm[decision.target] = (
                line.tokens.prompt * (rates.input_picousd - rates.input_picousd // 10) // 1000
            )  # a cached token costs a tenth
            sticky, before = decision.target, line
    return calls


def had_it_stayed(before, line, target):
    """What the simulator would have billed for this call had the conversation stayed where its cache was warm."""
    from llm_cost_middleware.simulator.bill import Tokens, cost_nanousd
    from llm_cost_middleware.simulator.catalogue import catalogue

    read = min(before.tokens.prompt, line.tokens.prompt) // 128 * 128
    tokens = Tokens(input=line.tokens.prompt - read, read=read, output=line.tokens.output)
    return cost_nanousd(catalogue()[target.model], tokens)


def is_demanded(before, decision, policy):
    """Whether the rule itself, not a price or a draw, took the conversation up a tier."""
    features = decision.features
    return RATES[before.model].tier < decision.tier and policy.is_large(features.text_length, features.item_count)


def test_a_task_never_switches_where_the_cache_is_worth_more(data_folder, show, keep_figures, soak):
    openai = pytest.importorskip("openai")
    from llm_cost_middleware.simulator import Replay, Simulator

    folder = data_folder / "agent_traces"
    with gzip.open(folder / "airline_conversations.jsonl.gz", "rt", encoding="utf-8") as lines:
        conversations = [json.loads(line) | {"name": str(number)} for number, line in enumerate(lines)]
    conversations = conversations if soak else conversations[:24]  # of fewer, where they start is chance
    tools = json.loads((folder / "airline_tools.json").read_text(encoding="utf-8"))
    policy = RoutingPolicy(explore=1.0)
    table, kept = [], {}
    for name, per_task in (("each prompt by itself", False), ("per task", True)):
        with (
            Simulator(responder=Replay(conversations)) as sim,
            openai.OpenAI(base_url=sim.openai_url, api_key="k", max_retries=0) as client,
        ):
            calls = play(sim, client, conversations, tools, per_task=per_task, policy=policy)
            bill = sim.bill.total_nanousd / 1e9
        switches = [call for call in calls if call[0] is not None and call[0] != call[1].target]
        # what each cost beside staying; the demanded ones apart
        extra = [
            (line.cost_nanousd - had_it_stayed(before, line, stayed), is_demanded(stayed, decision, policy))
            for stayed, decision, before, line in switches
        ]
        bad = sum(nano > 0 and not demanded for nano, demanded in extra)
        up = [nano for nano, demanded in extra if demanded]
        kept[name] = {
            "calls": len(calls), "bill_usd": bill, "switches": len(switches), "losing_switches": bad,
            "demanded_up": len(up), "demanded_up_usd": sum(up) / 1e9,
        }  # fmt: skip
        table.append((name, len(calls), f"${bill:.4f}", len(switches), bad, len(up), f"${sum(up) / 1e9:.4f}"))
    head = ("routing", "calls", "bill", "switches", "losing", "up by the rule", "for")
    show("Agent conversations, billed by the simulator", head, table)
    keep_figures("sticky", kept)
    alone, task = kept.values()
    assert task["losing_switches"] == 0
    assert alone["losing_switches"] > 0
    assert task["bill_usd"] < alone["bill_usd"]
