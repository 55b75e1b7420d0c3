"""What a host's owner sets holds: the timeout that is sent, how often is tried, how long is waited, as by the host.

Host x setting x place x value, each bare and with us against a server on loopback. What differs on purpose stands in
``DIFFERENT``, with its reason; a row of it that no longer differs fails as well.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import httpx
import httpx2
import openai
import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import guard, instrument
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "x"}]
GPT = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
}  # fmt: skip
CLAUDE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6",
    "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip


class Recorder:
    """A provider that notes what it is sent, and fails on demand."""

    def __init__(self):
        self.timeouts, self.arrived, self.failing, self.retry_after_ms = [], [], False, 1
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                outer.arrived.append(time.monotonic())
                body = {"error": {"message": "no"}} if outer.failing else CLAUDE if "messages" in self.path else GPT
                data = json.dumps(body).encode()
                self.send_response(500 if outer.failing else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.send_header("retry-after-ms", str(outer.retry_after_ms))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def forget(self):
        self.timeouts.clear()
        self.arrived.clear()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def recorder():
    made = Recorder()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quiet(recorder, monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "OPENAI_PROXY"):
        monkeypatch.delenv(name, raising=False)
    recorder.forget()
    recorder.failing, recorder.retry_after_ms = False, 1
    for http in (httpx, httpx2):  # the last place where a timeout can be seen: what the connection is told
        send, asend = http.HTTPTransport.handle_request, http.AsyncHTTPTransport.handle_async_request
        monkeypatch.setattr(http.HTTPTransport, "handle_request", noted(send, recorder))
        monkeypatch.setattr(http.AsyncHTTPTransport, "handle_async_request", noted(asend, recorder))


def noted(send, recorder):
    def handle(transport, request):
        recorder.timeouts.append(tuple(request.extensions["timeout"].values()))
        return send(transport, request)

    return handle


# --- hosts -----------------------------------------------------------------------------------------------------------


class SdkHost:
    """A client of an SDK, bare or wrapped."""

    places = ("constructor", "with_options", "assigned", "request", "transport")

    def __init__(self, provider, *, is_async):
        self.provider, self.is_async = provider, is_async

    def send(self, url, setting, place, value, *, govern):
        sdk = openai if self.provider == "openai" else anthropic
        prefix = "Async" if self.is_async else ""
        kind = getattr(sdk, f"{prefix}OpenAI" if self.provider == "openai" else f"{prefix}Anthropic")
        options = {setting: value} if place == "constructor" else {}
        if place == "transport":
            transport = httpx2.AsyncClient if self.is_async else httpx2.Client
            options["http_client"] = transport(timeout=value)
        client = kind(api_key="k", base_url=f"{url}/v1" if self.provider == "openai" else url, **options)
        if govern:
            wrap = wrap_openai if self.provider == "openai" else wrap_anthropic
            governed = wrap(client, config())
        else:
            governed = client
        used = governed.with_options(**{setting: value}) if place == "with_options" else governed
        if place == "assigned":
            setattr(used, setting, value)
        more = {setting: value} if place == "request" else {}
        if self.provider == "openai":
            create, body = used.chat.completions.create, {"model": "gpt-4o", "messages": ASK, "max_tokens": 5}
        else:
            create, body = used.messages.create, {"model": "claude-sonnet-4-6", "messages": ASK, "max_tokens": 5}
        if self.is_async:
            asyncio.run(self._asend(create, client, {**body, **more}))
            return
        try:
            create(**body, **more)
        except sdk.APIStatusError:
            pass
        finally:
            client.close()

    async def _asend(self, create, client, body):
        try:
            await create(**body)
        except (openai.APIStatusError, anthropic.APIStatusError):
            pass
        finally:
            await client.close()


class LangChainHost:
    """A chat model, bare, guarded or in an instrumented chain."""

    places = ("constructor", "client", "client assigned", "request", "bound")

    def __init__(self, provider, *, is_async, chain=False):
        self.provider, self.is_async, self.chain = provider, is_async, chain

    def send(self, url, setting, place, value, *, govern):
        from langchain_anthropic import ChatAnthropic
        from langchain_core.runnables import RunnableLambda
        from langchain_openai import ChatOpenAI

        options = {setting: value} if place == "constructor" else {}
        client = self._client(url, {setting: value}) if place.startswith("client") else None
        if self.provider == "openai":
            fields = self._fields(client) if place == "client" else {}
            model = ChatOpenAI(model="gpt-4o", api_key="k", base_url=f"{url}/v1", max_tokens=5, **options, **fields)
        else:
            model = ChatAnthropic(model="claude-sonnet-4-6", api_key="k", base_url=url, max_tokens=5, **options)
            if place == "client":
                self._assign(model, client)
        if govern and not self.chain:
            model = guard(model, config(), pinned=True)
        if place == "client assigned":
            self._assign(model, client)
        used = model.bind(**{setting: value}) if place == "bound" else model
        if self.chain:
            used = RunnableLambda(lambda given: given) | used
            used = instrument(used, config()) if govern else used
        more = {setting: value} if place == "request" else {}
        if self.is_async:
            asyncio.run(self._asend(used, client, more))
            return
        try:
            used.invoke("x", **more)
        except (openai.APIStatusError, anthropic.APIStatusError):
            pass
        finally:
            if client is not None:
                client.close()

    async def _asend(self, used, client, more):
        try:
            await used.ainvoke("x", **more)
        except (openai.APIStatusError, anthropic.APIStatusError):
            pass
        finally:
            if client is not None:
                await client.close()

    def _client(self, url, options):
        if self.provider == "openai":
            kind = openai.AsyncOpenAI if self.is_async else openai.OpenAI
            return kind(api_key="k", base_url=f"{url}/v1", **options)
        kind = anthropic.AsyncAnthropic if self.is_async else anthropic.Anthropic
        return kind(api_key="k", base_url=url, **options)

    def _fields(self, client):
        prefix = "async_" if self.is_async else ""
        return {f"root_{prefix}client": client, f"{prefix}client": client.chat.completions}

    def _assign(self, model, client):
        fields = self._fields(client) if self.provider == "openai" else {}
        for name, value in (fields or {"_async_client" if self.is_async else "_client": client}).items():
            setattr(model, name, value)


def config(**retry):
    # no routing, and the first wait as short as the server asks
    return CostConfig(routing={"policy": "threshold"}, retry={"base_s": 0.001, **retry})


def _hosts():
    for provider, is_async in itertools.product(("openai", "anthropic"), (False, True)):
        how = "async" if is_async else "sync"
        yield pytest.param(SdkHost(provider, is_async=is_async), id=f"{provider}-{how}")
        yield pytest.param(LangChainHost(provider, is_async=is_async), id=f"langchain-{provider}-{how}")
    yield pytest.param(LangChainHost("openai", is_async=False, chain=True), id="chain-openai-sync")
    yield pytest.param(LangChainHost("anthropic", is_async=True, chain=True), id="chain-anthropic-async")


HOSTS = list(_hosts())
TIMEOUTS = {"30": 30, "900": 900, "0.5": 0.5, "none": None, "Timeout(45)": httpx2.Timeout(45),
            "Timeout(read=7)": httpx2.Timeout(5, read=7)}  # fmt: skip
RETRIES = (0, 1, 2, 4)
CASES = [
    *((("timeout", place, label), value)
      for place in ("constructor", "with_options", "assigned", "request", "transport", "client", "client assigned",
                    "bound")
      for label, value in TIMEOUTS.items()),
    *((("max_retries", place, str(value)), value)
      for place in ("constructor", "with_options", "assigned", "client", "client assigned")
      for value in RETRIES),
]  # fmt: skip
DIFFERENT: dict[tuple[str, str, str], str] = {}
"""Deliberate differences: setting, place and value, and why. There are none."""
OF_NO_CHAIN = {"client assigned", "request", "bound"}  # it is instrumented once it is made, and takes no arguments


def _product():
    applicable = [
        (host, case, value)
        for host in HOSTS
        for case, value in CASES
        if case[1] in host.values[0].places and not (getattr(host.values[0], "chain", False) and case[1] in OF_NO_CHAIN)
    ]
    for at, (host, case, value) in enumerate(applicable):
        # a prime, so that every host, place and value is in the short form
        marks = () if at % 5 == 0 else pytest.mark.soak
        yield pytest.param(host.values[0], case, value, marks=marks, id="-".join((host.id, *case)))


@pytest.mark.usefixtures("forget_transports")
@pytest.mark.parametrize(("host", "case", "value"), list(_product()))
def test_what_the_owner_set_is_what_is_sent_and_tried(host, case, value, recorder):
    setting, place, _ = case
    recorder.failing = setting == "max_retries"
    results = []
    for govern in (False, True):
        recorder.forget()
        try:
            host.send(recorder.url, setting, place, value, govern=govern)
        except (TypeError, ValueError) as refused:  # the host itself takes no such value there
            results.append(type(refused))
        else:
            results.append(list(recorder.timeouts))
            assert len(recorder.arrived) == len(recorder.timeouts) > 0
    bare, ours = results
    assert (bare != ours) is (case in DIFFERENT), f"bare {bare}, with us {ours}"


@pytest.fixture
def forget_transports():
    """LangChain keeps one asynchronous transport for all event loops, and bare models use it."""
    yield
    from langchain_anthropic import _client_utils as of_anthropic
    from langchain_openai.chat_models import _client_utils as of_openai

    for module in (of_anthropic, of_openai):
        for made in vars(module).values():
            if callable(getattr(made, "cache_clear", None)):
                made.cache_clear()


@pytest.mark.usefixtures("forget_transports")
@pytest.mark.parametrize("host", HOSTS)
def test_nothing_set_is_the_hosts_own(host, recorder):
    """No timeout of ours; and as many tries as both SDKs make."""
    for recorder.failing in (False, True):
        results = []
        for govern in (False, True):
            recorder.forget()
            host.send(recorder.url, "", "", None, govern=govern)
            results.append(list(recorder.timeouts))
        assert results[0] == results[1]
        assert len(results[0]) == (3 if recorder.failing else 1)


@pytest.mark.usefixtures("forget_transports")
@pytest.mark.parametrize("host", HOSTS)
def test_a_wait_that_the_provider_asks_for_is_kept(host, recorder):
    recorder.failing, recorder.retry_after_ms = True, 120
    for govern in (False, True):
        recorder.forget()
        host.send(recorder.url, "max_retries", "constructor", 1, govern=govern)
        first, second = recorder.arrived
        assert second - first >= 0.12


@pytest.mark.parametrize("host", HOSTS[:1] + HOSTS[2:3])
def test_the_call_beats_the_client_and_the_client_beats_the_configuration(host, recorder, monkeypatch):
    recorder.failing = True
    monkeypatch.setitem(globals(), "config", lambda: CostConfig(retry={"max_attempts": 4, "base_s": 0.001}))
    host.send(recorder.url, "", "", None, govern=True)
    assert len(recorder.arrived) == 4, "nothing set: [retry]"
    recorder.forget()
    host.send(recorder.url, "max_retries", "constructor", 1, govern=True)
    assert len(recorder.arrived) == 2, "the client's"
    recorder.forget()
    host.send(recorder.url, "max_retries", "with_options", 0, govern=True)
    assert len(recorder.arrived) == 1, "the copy's"


@pytest.mark.usefixtures("forget_transports")
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("asked", ["timeout_s", "cut_at_deadline"])
def test_a_limit_of_the_configuration_shortens_and_never_lengthens(host, asked, recorder, monkeypatch):
    def limited():
        if asked == "timeout_s":
            providers = {name: {"timeout_s": 60} for name in ("openai", "anthropic")}
            return CostConfig(providers=providers, routing={"policy": "threshold"})
        retry = {"deadline_s": 60, "cut_at_deadline": True}
        return CostConfig(retry=retry, routing={"policy": "threshold"})

    monkeypatch.setitem(globals(), "config", limited)
    for value, least, most in ((900, 55, 60), (30, 30, 30), (httpx2.Timeout(900), 55, 60), (None, 55, 60)):
        if "Timeout" in repr(value) and isinstance(host, LangChainHost) and host.provider == "anthropic":
            continue  # its field takes numbers only
        recorder.forget()
        host.send(recorder.url, "timeout", "constructor", value, govern=True)
        (phases,) = recorder.timeouts
        assert least <= phases[1] <= most, value
