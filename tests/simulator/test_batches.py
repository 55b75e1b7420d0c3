"""Batches of both providers, at half price."""

import json

import anthropic
import openai
import pytest

from llm_cost_middleware.simulator import Answer


def test_a_message_batch_is_answered_billed_at_half_price_and_fetched(sim, claude, user):
    sim.responder = lambda request: Answer(text=request.last_user_text, output_tokens=10)
    params = {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": user("hello there")}
    made = claude.messages.batches.create(
        requests=[
            {"custom_id": "good", "params": params},
            {"custom_id": "bad", "params": params | {"model": "claude-none"}},
        ]
    )
    assert (made.processing_status, made.request_counts.processing) == ("in_progress", 2)
    ended = claude.messages.batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.succeeded, ended.request_counts.errored) == ("ended", 1, 1)
    good, bad = claude.messages.batches.results(made.id)
    assert good.result.message.content[0].text == "hello there"
    assert good.result.message.usage.service_tier == "batch"
    assert (bad.result.type, bad.result.error.error.type) == ("errored", "not_found_error")
    (line,) = sim.bill.lines
    assert (line.request_id, line.tier, line.cost_nanousd) == (good.result.message.id, "batch", 5_000 + 25_000)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve("msgbatch_nobody")


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_an_openai_batch_goes_through_files(sim, gpt, user, endpoint):
    sim.responder = lambda _: Answer(text="ok", output_tokens=10)
    body = {"model": "gpt-5-mini"} | (
        {"input": "hello there"} if "responses" in endpoint else {"messages": user("hello there")}
    )
    lines = [
        {"custom_id": "good", "method": "POST", "url": endpoint, "body": body},
        {"custom_id": "bad", "method": "POST", "url": endpoint, "body": body | {"model": "gpt-none"}},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = gpt.files.create(file=("in.jsonl", content), purpose="batch")
    made = gpt.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    assert (made.status, made.output_file_id) == ("validating", None)
    done = gpt.batches.retrieve(made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 1)
    good = json.loads(gpt.files.content(done.output_file_id).read())
    bad = json.loads(gpt.files.content(done.error_file_id).read())
    assert (good["custom_id"], bad["response"]["body"]["error"]["code"]) == ("good", "model_not_found")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (9, 10)
    (line,) = sim.bill.lines
    # 9 at 0.125, 10 at 1 USD a million
    assert (line.request_id, line.cost_nanousd) == (good["response"]["body"]["id"], 1_125 + 10_000)
    with pytest.raises(openai.NotFoundError):
        gpt.batches.retrieve("batch_nobody")
