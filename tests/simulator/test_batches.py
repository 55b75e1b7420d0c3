"""Batches of both providers, at half price."""

import json

import anthropic
import openai
import pytest

from llm_cost_middleware.simulator import Answer, BatchPace


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
    bad, good = claude.messages.batches.results(made.id)
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
        {"custom_id": "bad", "method": "POST", "url": endpoint, "body": body | {"service_tier": "none"}},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = gpt.files.create(file=("in.jsonl", content), purpose="batch")
    made = gpt.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    assert (made.status, made.output_file_id) == ("validating", None)
    done = gpt.batches.retrieve(made.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 1)
    good = json.loads(gpt.files.content(done.output_file_id).read())
    bad = json.loads(gpt.files.content(done.error_file_id).read())
    assert (good["custom_id"], bad["custom_id"], bad["response"]["status_code"]) == ("good", "bad", 400)
    assert (done.usage.input_tokens, done.usage.output_tokens) == (9, 10)
    (line,) = sim.bill.lines
    # 9 at 0.125, 10 at 1 USD a million
    assert (line.request_id, line.cost_nanousd) == (good["response"]["body"]["id"], 1_125 + 10_000)
    with pytest.raises(openai.NotFoundError):
        gpt.batches.retrieve("batch_nobody")


DAY_S = 86_400


def claude_batch(claude, user, count, **more):
    params = {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": user("hello there")}
    return claude.messages.batches.create(
        requests=[{"custom_id": f"r-{at}", "params": params} | more for at in range(count)]
    )


def gpt_batch(gpt, lines, endpoint="/v1/chat/completions", **more):
    content = "\n".join(json.dumps(line) if isinstance(line, dict) else line for line in lines).encode()
    file = gpt.files.create(file=("in.jsonl", content), purpose="batch")
    return gpt.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def gpt_lines(count, user=lambda text: [{"role": "user", "content": text}], **more):
    body = {"model": "gpt-5-mini", "messages": user("hello there")}
    return [
        {"custom_id": f"r-{at}", "method": "POST", "url": "/v1/chat/completions", "body": body} | more
        for at in range(count)
    ]


def test_a_message_batch_takes_its_time_and_counts_nothing_before_it_has_ended(sim, claude, user):
    sim.batch_pace = BatchPace(delay_s=4_000)
    made = claude_batch(claude, user, 8)
    sim.clock.advance(3_000)
    going = claude.messages.batches.retrieve(made.id)
    assert (going.processing_status, going.request_counts.processing, going.results_url) == ("in_progress", 8, None)
    with pytest.raises(anthropic.AnthropicError):
        claude.messages.batches.results(made.id)
    assert len(sim.bill.lines) == 6  # three waves of four
    sim.clock.advance(1_000)
    ended = claude.messages.batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 8)
    assert [line.custom_id for line in claude.messages.batches.results(made.id)] == [f"r-{at}" for at in range(8)][::-1]


def test_a_half_expired_batch_returns_and_bills_what_was_answered(sim, claude, gpt, user):
    sim.batch_pace = BatchPace(delay_s=60, stuck=0.5)
    one, other = claude_batch(claude, user, 4), gpt_batch(gpt, gpt_lines(4))
    sim.clock.advance(DAY_S - 1)
    assert claude.messages.batches.retrieve(one.id).processing_status == "in_progress"
    assert gpt.batches.retrieve(other.id).status == "in_progress"
    sim.clock.advance(1)
    ended = claude.messages.batches.retrieve(one.id)
    assert (ended.request_counts.succeeded, ended.request_counts.expired) == (2, 2)
    kinds = [line.result.type for line in claude.messages.batches.results(one.id)]
    assert sorted(kinds) == ["expired", "expired", "succeeded", "succeeded"]
    expired = gpt.batches.retrieve(other.id)
    assert (expired.status, expired.request_counts.completed, expired.request_counts.total) == ("expired", 2, 4)
    bad = [json.loads(line) for line in gpt.files.content(expired.error_file_id).text.splitlines()]
    assert [(line["custom_id"], line["response"], line["error"]["code"]) for line in bad] == [
        ("r-2", None, "batch_expired"), ("r-3", None, "batch_expired"),
    ]  # fmt: skip
    assert len(sim.bill.lines) == 4


def test_a_cancelled_batch_returns_and_bills_what_was_answered(sim, claude, gpt, user):
    sim.batch_pace = BatchPace(delay_s=400)
    one, other = claude_batch(claude, user, 4), gpt_batch(gpt, gpt_lines(4))
    sim.clock.advance(200)
    assert claude.messages.batches.cancel(one.id).processing_status == "canceling"
    assert gpt.batches.cancel(other.id).status == "cancelling"
    sim.clock.advance(1_000)
    counts = claude.messages.batches.retrieve(one.id).request_counts
    assert (counts.succeeded, counts.canceled) == (2, 2)
    ended = gpt.batches.retrieve(other.id)
    assert (ended.status, ended.request_counts.completed) == ("cancelled", 2)
    assert "batch_cancelled" in gpt.files.content(ended.error_file_id).text
    assert len(sim.bill.lines) == 4
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.batches.cancel(one.id)
    with pytest.raises(openai.ConflictError):
        gpt.batches.cancel(other.id)


@pytest.mark.parametrize("custom_id", ["", "a b", "ü", "a" * 65, "a.b", "a/b"])
def test_a_message_batch_refuses_ids_that_its_pattern_does_not_take(sim, claude, user, custom_id):
    with pytest.raises(anthropic.BadRequestError, match="custom_id"):
        claude_batch(claude, user, 1, custom_id=custom_id)
    assert sim.bill.lines == ()


def test_a_message_batch_refuses_what_is_too_much_or_not_for_batches(sim, claude, user):
    with pytest.raises(anthropic.BadRequestError, match="unique"):
        claude_batch(claude, user, 2, custom_id="one")
    for name, value in (("stream", True), ("max_tokens", 0)):
        params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": user("hi"), name: value}
        with pytest.raises(anthropic.BadRequestError, match=name):
            claude_batch(claude, user, 1, params=params)
    with pytest.raises(anthropic.BadRequestError, match="at most 100000"):
        claude.messages.batches.create(requests=[{"custom_id": "a", "params": {}}] * 100_001)


def test_an_openai_batch_fails_its_validation_after_it_was_created(sim, gpt):
    good = gpt_lines(1)[0]
    wrong = {
        "empty_file": [" "],
        "invalid_json_line": ["{"],
        "missing_required_parameter": [{**good, "custom_id": None} | {"url": good["url"]}, {"url": "/"}],
        "duplicate_custom_id": [good, good],
        "mismatched_url": [{**good, "url": "/v1/responses"}],
        "mismatched_model": [good, {**good, "custom_id": "x", "body": {**good["body"], "model": "gpt-5"}}],
        "too_many_requests": ["{}"] * 50_001,
    }
    for code, lines in wrong.items():
        made = gpt_batch(gpt, lines)
        assert made.status == "validating"
        failed = gpt.batches.retrieve(made.id)
        assert (failed.status, failed.errors.data[0].code) == ("failed", code)
    assert sim.bill.lines == ()


def test_openai_refuses_files_of_another_purpose_and_metadata_beyond_its_limits(gpt):
    file = gpt.files.create(file=("in.jsonl", b"{}"), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="input_file_id"):
        gpt.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for metadata in ({"k" * 65: "v"}, {"k": "v" * 513}, {str(at): "v" for at in range(17)}):
        with pytest.raises(openai.BadRequestError, match="metadata"):
            gpt_batch(gpt, gpt_lines(1), metadata=metadata)


def test_batches_are_listed_the_newest_first_in_pages(sim, claude, gpt, user):
    ours = [claude_batch(claude, user, 1).id for _ in range(3)]
    theirs = [gpt_batch(gpt, gpt_lines(1), metadata={"n": str(at)}).id for at in range(3)]
    assert [batch.id for batch in claude.messages.batches.list(limit=2)] == ours[::-1]
    assert [batch.id for batch in gpt.batches.list(limit=2)] == theirs[::-1]


def test_results_are_kept_for_29_days(sim, claude, user):
    made = claude_batch(claude, user, 1)
    sim.clock.advance(29 * DAY_S)
    archived = claude.messages.batches.retrieve(made.id)
    assert (archived.results_url, archived.archived_at is None) == (None, False)


@pytest.mark.parametrize(("ttl", "reads"), [("5m", 0), ("1h", 3)])
def test_a_wave_of_a_batch_reads_what_the_wave_before_wrote_while_it_lives(sim, claude, ttl, reads):
    sim.batch_pace = BatchPace(delay_s=4 * 1_800)
    system = [{"type": "text", "text": "rule " * 5_000, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
    params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    made = claude.messages.batches.create(
        requests=[{"custom_id": f"r{at}", "params": params | {"system": system}} for at in range(4)]
    )
    sim.clock.advance(DAY_S)
    results = list(claude.messages.batches.results(claude.messages.batches.retrieve(made.id).id))
    assert sum(line.result.message.usage.cache_read_input_tokens > 0 for line in results) == reads
