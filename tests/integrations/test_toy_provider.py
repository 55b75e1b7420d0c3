"""A new provider is one package and one line: a toy one, over HTTP, routed, reserved, retried, priced and settled."""

from __future__ import annotations

import json
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline, cost_context
from llm_cost_middleware.context import current_context
from llm_cost_middleware.events import Reserved, Retried
from llm_cost_middleware.host import ObservedStream, ainvoke, invoke
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.testing import FakeClock

PRICES = {
    "toy/toy-small": {"input_mtok": "1.00", "output_mtok": "4.00"},
    "toy/toy-large": {"input_mtok": "10.00", "output_mtok": "40.00"},
}


class ToyServer(ThreadingHTTPServer):
    """Counts words, keeps a bill of its own, and is full as often as it is told to be."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies, self.bill, self.full = [], Decimal(0), 0

    def answer(self, body):
        self.bodies.append(body)
        if self.full:
            self.full -= 1
            return 503, {"fault": {"kind": "full", "text": "come back later"}}
        words = sum(len(message["content"].split()) for message in body["messages"])
        meter = {"in": words, "out": min(3, body["most"])}
        price = PRICES[f"toy/{body['model']}"]
        self.bill += meter["in"] * Decimal(price["input_mtok"]) + meter["out"] * Decimal(price["output_mtok"])
        return 200, {"model": body["model"], "text": "so it is", "meter": meter}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        status, answer = self.server.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


class ToyError(Exception):
    """As an SDK would raise it."""

    def __init__(self, status_code, body):
        super().__init__(f"{status_code}")
        self.status_code, self.body = status_code, body


class Seen(list):
    """An observer that keeps what it sees."""

    def on_event(self, event):
        self.append(event)


class ToyCall(NamedTuple):
    """A host of a few lines."""

    body: dict
    stream: bool = False
    providers: frozenset = frozenset({"toy"})
    counter: None = None

    @property
    def request(self):
        request = get_provider("toy").read_request(self.body)
        return request._replace(context=current_context(), stream=self.stream)

    def render(self, attempt):
        return get_provider("toy").write_request(self.body, attempt, "chat.completions")

    def read(self, attempt, raw):
        del attempt
        if not self.stream:
            return CallResult(raw, get_provider("toy").read_usage(raw))
        return ObservedStream([{"text": "so"}, raw], get_provider("toy").new_stream_reader(), lambda: None)

    def billed_usage(self, attempt, error):
        return None

    def deliver(self, answer):
        return answer if self.stream else answer.response


@pytest.fixture
def server():
    with ToyServer() as made:
        Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def send(server):
    def post(body):
        url = f"http://127.0.0.1:{server.server_port}/chat"
        try:
            with urlopen(Request(url, json.dumps(body).encode())) as response:
                return json.load(response)
        except HTTPError as error:
            raise ToyError(error.code, json.load(error)) from None

    return post


@pytest.fixture
def open_pipeline(toy_provider, server):
    opened = []

    def make(limit="1.00"):
        assert toy_provider == "toy"
        events = Seen()
        config = CostConfig(
            tiers=[{"name": "small", "models": ["toy/toy-small"]}, {"name": "large", "models": ["toy/toy-large"]}],
            providers={"toy": {"base_url": f"http://127.0.0.1:{server.server_port}"}},
            budgets=[{"scope": "global", "limit": limit}],
            prices=PRICES,
            on_unknown_price="deny",
        )
        opened.append(CostPipeline(config, clock=FakeClock(), observers=(events,)))
        return opened[-1], events

    yield make
    for pipeline in opened:
        pipeline.close()


def ask(text="how many words are these", **more):
    return {"model": "smart", **get_provider("toy").write_prompt("be brief", text), **more}


def _agree(pipeline, server):
    balance = pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == server.bill * 1_000  # dollars a million tokens, in nano-dollars
    assert pipeline.tracker.total_cost == balance.settled


def test_a_call_is_routed_reserved_priced_and_settled(open_pipeline, server, send):
    pipeline, events = open_pipeline()
    with cost_context(user="1"):
        answer = invoke(pipeline, ToyCall(ask(most=5)), send)
    assert answer["text"] == "so it is"
    assert [body["model"] for body in server.bodies] == ["toy-small"]
    (reserved,) = [event for event in events if isinstance(event, Reserved)]
    (record,) = pipeline.records()
    assert reserved.amount_nanousd >= record.cost_nanousd == server.bill * 1_000 > 0
    assert (record.provider, record.model, record.status) == ("toy", "toy-small", "exact")
    assert pipeline.ledger.balance("user:1").settled == pipeline.ledger.balance("provider:toy").settled
    _agree(pipeline, server)


def test_its_error_rules_decide_what_is_retried(open_pipeline, server, send):
    pipeline, events = open_pipeline()
    server.full = 1
    assert invoke(pipeline, ToyCall(ask(most=5)), send)["text"] == "so it is"
    assert [str(event.kind) for event in events if isinstance(event, Retried)] == ["overloaded"]
    assert len(server.bodies) == 2
    _agree(pipeline, server)


def test_a_long_call_is_routed_one_tier_higher_and_a_forced_model_is_found_by_its_prefix(open_pipeline, server, send):
    pipeline, _ = open_pipeline()
    invoke(pipeline, ToyCall(ask("word " * 2_500, most=5)), send)
    with cost_context(force_model="toy-large"):
        invoke(pipeline, ToyCall(ask(most=5)), send)
    assert [body["model"] for body in server.bodies] == ["toy-large", "toy-large"]
    _agree(pipeline, server)


def test_what_does_not_fit_is_refused_before_it_is_sent(open_pipeline, server, send):
    pipeline, _ = open_pipeline(limit="0.000001")
    with pytest.raises(BudgetExceededError):
        invoke(pipeline, ToyCall(ask(most=5)), send)
    assert server.bodies == []
    _agree(pipeline, server)


def test_a_stream_is_settled_from_its_own_events(open_pipeline, server, send):
    pipeline, _ = open_pipeline()
    with invoke(pipeline, ToyCall(ask(most=5), stream=True), send) as chunks:
        assert [chunk["text"] for chunk in chunks] == ["so", "so it is"]
    _agree(pipeline, server)


async def test_an_asynchronous_call_is_the_same(open_pipeline, server, send):
    pipeline, _ = open_pipeline()

    async def asend(body):
        return send(body)

    assert (await ainvoke(pipeline, ToyCall(ask(most=5)), asend))["text"] == "so it is"
    _agree(pipeline, server)
