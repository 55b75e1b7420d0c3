"""Scripted faults: what the clients see, what reached the wire, what is billed."""

import anthropic
import httpx
import openai
import pytest

from llm_cost_middleware.simulator import Answer, Fault, Simulator

HAIKU, MINI = "claude-haiku-4-5", "gpt-5-mini"


@pytest.fixture
def say(claude, user):
    return lambda **more: claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hello there"), **more)


@pytest.fixture
def chat(gpt, user):
    return lambda **more: gpt.chat.completions.create(model=MINI, messages=user("hello there"), **more)


CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "InternalServerError",
    503: "InternalServerError",
    504: "InternalServerError",
    529: "InternalServerError",
}


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529])
def test_every_status_is_an_error_of_its_class_and_costs_nothing(sim, say, chat, code):
    for call, sdk in ((say, anthropic), (chat, openai)):
        sim.script(Fault.status(code))
        with pytest.raises(sdk.APIStatusError) as caught:
            call()
        assert caught.value.status_code == code
        if sdk is openai and code in CLASSES:
            assert type(caught.value).__name__ == CLASSES[code]
    assert sim.bill.lines == ()
    assert [request.status for request in sim.requests] == [code, code]
    assert call().id == sim.bill.lines[0].request_id


def test_a_rate_limit_carries_what_the_script_says(sim, say, chat):
    sim.script(Fault.status(429, retry_after=7, retry_after_ms=7000, should_retry=False, headers={"x-extra": "1"}))
    with pytest.raises(anthropic.RateLimitError) as caught:
        say()
    headers = caught.value.response.headers
    assert [headers[name] for name in ("retry-after", "retry-after-ms", "x-should-retry", "x-extra")] == [
        "7",
        "7000",
        "false",
        "1",
    ]
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert caught.value.body["request_id"] == headers["request-id"]


def test_out_of_money_and_too_large_are_distinguished_by_code_and_message(sim, say, chat):
    sim.script(Fault.insufficient_quota(), times=2)
    with pytest.raises(openai.RateLimitError) as quota:
        chat()
    assert (quota.value.code, quota.value.type) == ("insufficient_quota", "insufficient_quota")
    with pytest.raises(anthropic.RateLimitError) as spend:
        say()
    assert spend.value.body["error"]["details"]["error_code"] == "enforced_spend_limit_reached"
    sim.script(Fault.request_too_large(), times=2)
    with pytest.raises(openai.RateLimitError, match="Request too large") as large:
        chat()
    assert large.value.code == "rate_limit_exceeded"
    with pytest.raises(anthropic.RateLimitError) as large:
        say()
    assert large.value.response.headers["x-should-retry"] == "false"


def test_the_proxy_in_front_answers_in_plain_text(sim, say):
    sim.script(Fault.proxy_503())
    with pytest.raises(anthropic.InternalServerError, match="upstream connect error") as caught:
        say()
    assert caught.value.response.headers["content-type"].startswith("text/plain")


def test_faults_are_taken_in_order_by_the_requests_they_match(sim, say, chat):
    sim.script(Fault.status(500), match=lambda request: request.provider == "openai")
    sim.script(Fault.overloaded(), times=2, match=lambda request: request.body["model"] == HAIKU)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        say()
    with pytest.raises(openai.InternalServerError):
        chat()
    assert sim.pending_faults == 1
    chat()
    with pytest.raises(anthropic.APIStatusError):
        say()
    say()
    assert [request.status for request in sim.requests] == [529, 500, 200, 529, 200]


def test_sdk_retries_are_seen_as_requests_of_their_own(sim, user):
    sim.script(Fault.status(500, should_retry=True, retry_after_ms=1), times=2)
    with openai.OpenAI(base_url=sim.openai_url, api_key="k", max_retries=2) as client:
        client.chat.completions.create(model=MINI, messages=user("hi"))
    assert [request.status for request in sim.requests] == [500, 500, 200]
    assert [request.headers["x-stainless-retry-count"] for request in sim.requests] == ["0", "1", "2"]
    assert len(sim.bill.lines) == 1


@pytest.mark.parametrize("billed", [True, False])
def test_a_request_that_hangs_times_out_and_is_billed_as_scripted(sim, say, billed):
    sim.script(Fault.hang(billed=billed))
    with pytest.raises(anthropic.APITimeoutError):
        say(timeout=1)
    assert sim.requests[0].status == 0
    costs = [(line.outcome, line.cost_nanousd) for line in sim.bill.lines]
    assert costs == ([("disconnected", 10_000 + 30_000)] if billed else [])


def test_a_reset_before_headers_is_a_connection_error(sim, say, chat):
    sim.script(Fault.reset(), times=2)
    with pytest.raises(anthropic.APIConnectionError):
        say()
    with pytest.raises(openai.APIConnectionError):
        chat()
    assert sim.bill.lines == ()


@pytest.mark.parametrize("clean", [False, True])
def test_a_cut_stream_is_billed_for_input_and_what_was_produced(sim, chat, clean):
    sim.responder = lambda _: Answer(text="x" * 160)  # ten events of 4 tokens after the first
    sim.script(Fault.cut(after=6, clean=clean))
    chunks = []
    stream = chat(stream=True)
    if clean:
        chunks = list(stream)
        assert len(chunks) == 6
    else:
        with pytest.raises((openai.APIConnectionError, httpx.ReadError)):  # openai 3 wraps it, openai 2 does not
            chunks.extend(stream)
    (line,) = sim.bill.lines
    assert (line.outcome, line.tokens.input, line.tokens.output) == ("cut", 9, 20)
    # 9 at 0.25, 20 at 2 USD a million
    assert line.cost_nanousd == 2_250 + 40_000


@pytest.mark.parametrize("clean", [False, True])
def test_a_json_answer_cut_in_half_is_billed_in_full(sim, chat, clean):
    sim.script(Fault.cut(after=0, clean=clean))
    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        chat()
    (line,) = sim.bill.lines
    assert (line.outcome, line.tokens.input, line.tokens.output) == ("cut", 9, 6)


def test_a_cut_claude_stream_has_begun_with_one_token(sim, claude, user):
    sim.script(Fault.cut(after=1))
    with pytest.raises(Exception) as caught:
        for _ in claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hello there"), stream=True):
            pass
    assert type(caught.value).__name__ in {"ReadError", "APIConnectionError", "RemoteProtocolError"}
    assert (sim.bill.lines[0].tokens.input, sim.bill.lines[0].tokens.output) == (10, 1)


@pytest.mark.parametrize("endpoint", ["messages", "chat", "responses"])
def test_an_error_event_ends_a_stream_that_began_with_200(sim, claude, gpt, user, endpoint):
    sim.responder = lambda _: Answer(text="x" * 160)
    sim.script(Fault.error_event(after=5, error_type="overloaded_error", message="Overloaded"))
    match endpoint:
        case "messages":
            with pytest.raises(anthropic.APIStatusError, match="Overloaded") as caught:
                list(claude.messages.create(model=HAIKU, max_tokens=99, messages=user("hi"), stream=True))
            assert caught.value.status_code == 200
        case "chat":
            with pytest.raises(openai.APIError, match="Overloaded"):
                list(gpt.chat.completions.create(model=MINI, messages=user("hi"), stream=True))
        case _:
            *_, last = gpt.responses.create(model=MINI, input="hi", stream=True)
            assert (last.type, last.code, last.message) == ("error", "overloaded_error", "Overloaded")
    (line,) = sim.bill.lines
    assert line.outcome == "failed"
    assert line.tokens.output < 40


def test_a_response_can_fail_with_status_200_and_is_not_billed(sim, gpt):
    sim.script(Fault.failed(code="rate_limit_exceeded", message="slow down"), times=2)
    reply = gpt.responses.create(model=MINI, input="hi")
    assert (reply.status, reply.error.code, reply.usage) == ("failed", "rate_limit_exceeded", None)
    *_, last = gpt.responses.create(model=MINI, input="hi", stream=True)
    assert (last.type, last.response.error.message) == ("response.failed", "slow down")
    assert sim.bill.lines == ()


def test_a_client_that_leaves_a_stream_pays_for_what_was_produced(sim, chat):
    sim.responder = lambda _: Answer(text="x" * 160)
    sim.script(Fault.slow(per_chunk_s=0.05))
    stream = chat(stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    sim.stop()
    (line,) = sim.bill.lines
    assert line.outcome == "disconnected"
    assert 8 <= line.tokens.output < 40


@pytest.mark.parametrize("size", [160, 400_000])
def test_a_client_that_leaves_a_stream_is_no_error_of_the_server(sim, chat, caplog, size):
    sim.responder = lambda _: Answer(text="x" * size)
    if size < 1_000:
        sim.script(Fault.slow(per_chunk_s=0.02))
    stream = chat(stream=True, max_completion_tokens=128_000)
    next(stream)
    stream.close()
    sim.stop()
    assert [record.message for record in caplog.records if record.name.startswith("aiohttp")] == []
    (line,) = sim.bill.lines
    assert line.outcome == "disconnected" or size > 1_000  # or all of it lay in the connection before the client left


def test_a_client_that_leaves_before_a_json_answer_pays_for_all_of_it(sim, say):
    sim.latency_s = 60
    with pytest.raises(anthropic.APITimeoutError):
        say(timeout=1)
    sim.stop()
    assert [(line.outcome, line.tokens.output) for line in sim.bill.lines] == [("disconnected", 6)]


def test_a_stalled_stream_keeps_the_connection_open(sim, chat):
    sim.script(Fault.stall(after=2))
    with pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):
        list(chat(stream=True, timeout=1))
    assert sim.bill.lines[0].outcome == "cut"


def test_usage_can_be_left_out(sim, claude, gpt, say, chat, user):
    sim.script(Fault.no_usage(), times=3)
    assert chat().usage is None
    assert gpt.responses.create(model=MINI, input="hi").usage is None
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert all(line.cost_nanousd for line in sim.bill.lines)


def test_a_gateway_may_send_output_tokens_alone_in_the_last_delta(sim, claude, user):
    sim.script(Fault.bare_delta())
    events = list(claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hello there"), stream=True))
    delta = next(event for event in events if event.type == "message_delta")
    assert delta.usage.model_dump(exclude_unset=True) == {"output_tokens": 6}


def test_nothing_listens_after_stop():
    with Simulator() as sim:
        url = sim.openai_url
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client, pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model=MINI, messages=[{"role": "user", "content": "x"}])
