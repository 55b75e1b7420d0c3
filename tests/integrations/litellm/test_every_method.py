"""Every public callable of the installed ``litellm.Router``, by every kind of name, through ``CostAwareRouter``.

Whatever reaches a provider has a row in the ledger, or is one of the requests that cost nothing. A method that is new
in LiteLLM is in no table: ``test_stand_in`` fails until somebody has looked at it, and here it is called.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import warnings

import pytest
from outward import Outward
from router_names import NAMES, OTHERS, listed

ASK = [{"role": "user", "content": "Say one word."}]
FREE = re.compile(
    r"file|moderation|^a?(get|list|delete|cancel|retrieve|upload)_|^a?retrieve|^acancel|container|vector_store_(list|get|"
    r"retrieve|update|delete)|vector_store_file|video_(list|status|content|get)|assistant|thread$|message|skill"
)
"""What providers do not bill: reading, listing, storing and deleting."""
UNSAFE = {
    "abatch_completion_fastest_response": "asked with several names below",
    "health": "measures the process",
    "arm_routing_read_prefetch": "starts a task that outlives the call",
}
ARGUMENTS = (
    (r"fastest", {"messages": ASK, "max_tokens": 9}),
    (r"one_model_multiple", {"messages": [ASK, ASK], "max_tokens": 9}),
    (r"schedule", {"messages": ASK, "priority": 1, "max_tokens": 9}),
    (r"anthropic_messages", {"messages": ASK, "max_tokens": 9}),
    (r"text_completion", {"prompt": "Say one word.", "max_tokens": 9}),
    (r"generate_content", {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}),
    (r"completion", {"messages": ASK, "max_tokens": 9}),
    (r"responses", {"input": "Say one word.", "max_output_tokens": 19}),
    (r"embedding", {"input": "Hi."}),
    (r"image|video", {"prompt": "A cat."}),
    (r"speech", {"input": "Hi.", "voice": "alloy"}),
    (r"moderation", {"input": "Hi."}),
    (r"rerank|search", {"query": "Hi.", "documents": ["a"]}),
    (r"interaction", {"input": "Hi."}),
    (r"batch", {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    (r".", {"messages": ASK, "input": "Hi.", "prompt": "Hi."}),
)
SEVERAL_KINDS = ("completion", "acompletion", "responses", "aresponses", "anthropic_messages", "schedule_acompletion",
                 "abatch_completion", "abatch_completion_one_model_multiple_requests", "text_completion",
                 "atext_completion", "agenerate_content", "aembedding", "embedding")  # fmt: skip
"""Asked by every kind of name, in the short form, too."""


def public_callables(router):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {*dir(router), *dir(type(router))}
        return sorted(name for name in names if not name.startswith("_") and callable(getattr(router, name, None)))


def arguments_of(method, name, model, more):
    fields = next(fields for pattern, fields in ARGUMENTS if re.search(pattern, method))
    if method == "abatch_completion":
        return {"models": [model], **fields, **more}
    return {"model": model, **fields, **more}


def call(router, method, arguments):
    """Call it as what it is, for a while; whatever it raises is its own."""
    try:
        answer = getattr(router, method)(**arguments)
        if inspect.isawaitable(answer):

            async def awaited():
                found = await asyncio.wait_for(answer, 20)
                return [chunk async for chunk in found] if hasattr(found, "__aiter__") else found

            answer = asyncio.run(awaited())
        if inspect.isgenerator(answer):
            list(answer)
    except (Exception, SystemExit):  # noqa: BLE001 - what counts is what left before
        return


@pytest.fixture(scope="module")
def outward():
    with Outward() as opened:
        yield opened


@pytest.fixture(params=["warn", "deny"])
def setting(request, make_harness, outward, monkeypatch):
    harness = make_harness(on_ungoverned=request.param)
    for name, value in outward.env.items():
        monkeypatch.setenv(name, value)
    for name, url in (("OPENAI", harness.sim.openai_url), ("ANTHROPIC", harness.sim.anthropic_url)):
        monkeypatch.setenv(f"{name}_API_BASE", url)
        monkeypatch.setenv(f"{name}_BASE_URL", url)
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    return harness, outward, request.param


def wrong(setting, method, kind):
    """What is wrong with one call; ``None`` where nothing is."""
    harness, outward, mode = setting
    model, more = {**NAMES, **OTHERS}[kind]
    router = listed(harness)
    sent, rows = harness.sim.request_count + len(outward.asked), len(list(harness.pipeline.ledger.rows()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(router, method, arguments_of(method, kind, model, more))
        router.discard()
    sent = harness.sim.request_count + len(outward.asked) - sent
    opened = [row for row in list(harness.pipeline.ledger.rows())[rows:] if row.kind in {"reserve", "book"}]
    if not sent or (FREE.search(method) and method not in SEVERAL_KINDS):
        return None
    if not opened:
        return f"{method} by {kind}: {sent} sent, no row"
    if mode == "deny" and any(row.kind != "reserve" for row in opened):
        return f"{method} by {kind}: {sent} sent without a reservation"
    return None


def test_no_callable_sends_anything_without_a_row(setting, request):
    harness = setting[0]
    methods = [name for name in public_callables(listed(harness)) if name not in UNSAFE]
    assert len(methods) > 200
    kinds = [*NAMES, *OTHERS]
    every = request.config.getoption("--soak")
    # each callable by one kind of name, in turn; the long form asks each by all
    asked = [
        (method, kind)
        for index, method in enumerate(methods)
        for kind in (kinds if every else [kinds[index % len(kinds)]])
    ]
    assert [found for one in asked if (found := wrong(setting, *one)) is not None] == []
    assert harness.sim.request_count > 10


def test_no_kind_of_name_leads_past_the_ledger(setting):
    harness, _, mode = setting
    asked = [(method, kind) for method in SEVERAL_KINDS for kind in (*NAMES, *OTHERS)]
    assert [found for one in asked if (found := wrong(setting, *one)) is not None] == []
    # what is governed is served by every name that leads somewhere
    assert harness.sim.request_count >= len(NAMES) * 6
    assert (mode == "warn") == any(row.status == "unpriced" for row in harness.pipeline.ledger.rows())
