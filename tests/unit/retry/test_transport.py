"""Connections that fail at every stage, under the real clients: what is known of the bill depends on the stage."""

from __future__ import annotations

import contextlib
import inspect
import socket
import struct
import threading

import pytest

from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.retry.classify import classify_error

MESSAGES = [{"role": "user", "content": "x"}]
ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    b'"content":[],"model":"claude-haiku-4-5","stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":5,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hi"}}\n\n'
)
OPENAI = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}\n\n'
)
EXPECTED = {
    "refused": (K.CONNECTION, True, "no"),
    "reset": (K.CONNECTION, True, "unknown"),
    "silent": (K.TIMEOUT, True, "unknown"),
    "reset inside the answer": (K.INTERRUPTED_STREAM, True, "unknown"),
    "closed inside the answer": (K.INTERRUPTED_STREAM, True, "unknown"),
    "silent inside the answer": (K.INTERRUPTED_STREAM, True, "unknown"),
}


class Faulty:
    """A server that reads a request and then behaves as ``how`` says."""

    def __init__(self) -> None:
        self.how = "reset"
        self.released = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def url(self) -> str:
        return "http://127.0.0.1:9" if self.how == "refused" else f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self.released.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._socket.accept()[0] as connection, contextlib.suppress(OSError):
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(65536)):
                return
            head += piece
        if self.how.endswith("answer"):
            events = ANTHROPIC if b"/messages" in head.split(b"\r\n")[0] else OPENAI
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                + f"{len(events):x}\r\n".encode()
                + events
                + b"\r\n"
            )
        if self.how.startswith("silent"):
            self.released.wait(5)
        if self.how == "reset inside the answer":
            self.released.wait(0.1)  # a reset throws away what the client has not read yet
        if self.how.startswith("reset"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def faulty():
    server = Faulty()
    yield server
    server.close()


def anthropic_sdk(url):
    import anthropic

    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0, timeout=1) as client:
        list(client.messages.create(model="claude-haiku-4-5", max_tokens=5, messages=MESSAGES, stream=True))


def openai_sdk(url):
    import openai

    with openai.OpenAI(api_key="k", base_url=url, max_retries=0, timeout=1) as client:
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))


async def openai_sdk_async(url):
    import openai

    async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0, timeout=1) as client:
        async for _ in await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True):
            pass


def openai_sdk_over_the_older_httpx(url):
    import httpx
    import openai

    http = httpx.Client(timeout=1)
    with openai.OpenAI(api_key="k", base_url=url, max_retries=0, http_client=http) as client:
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))


def chat_anthropic(url):
    from langchain_anthropic import ChatAnthropic

    list(ChatAnthropic(model="claude-haiku-4-5", api_key="k", base_url=url, max_retries=0, timeout=1).stream("x"))


def chat_openai(url):
    from langchain_openai import ChatOpenAI

    list(ChatOpenAI(model="gpt-4o-mini", api_key="k", base_url=url, max_retries=0, timeout=1).stream("x"))


def litellm_sync(url, model="anthropic/claude-haiku-4-5"):
    import litellm

    litellm.suppress_debug_info = True
    list(
        litellm.completion(
            model=model, messages=MESSAGES, api_key="k", api_base=url, max_retries=0, timeout=1, stream=True
        )
    )


async def litellm_async(url, model="anthropic/claude-haiku-4-5"):
    import litellm

    litellm.suppress_debug_info = True
    stream = await litellm.acompletion(
        model=model, messages=MESSAGES, api_key="k", api_base=url, max_retries=0, timeout=1, stream=True
    )
    async for _ in stream:
        pass


async def litellm_async_openai(url):
    await litellm_async(url, "openai/gpt-4o-mini")


CLIENTS = (
    anthropic_sdk, openai_sdk, openai_sdk_async, openai_sdk_over_the_older_httpx, chat_anthropic, chat_openai
)  # fmt: skip


async def _check(faulty, client, how):
    faulty.how = how
    try:
        answer = client(faulty.url)
        if inspect.isawaitable(answer):
            await answer
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the thing under test
        failure = classify_error(error)
        assert (failure.kind, failure.retryable, failure.billed) == EXPECTED[how], failure.reason  # same
    else:
        pytest.fail("nothing was raised")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDKs leave a broken stream to the garbage collector
@pytest.mark.parametrize("how", EXPECTED)
@pytest.mark.parametrize("client", CLIENTS)
async def test_the_stage_at_which_it_broke_decides_the_bill(faulty, client, how):
    await _check(faulty, client, how)


@pytest.mark.litellm
@pytest.mark.filterwarnings("ignore")  # its own; raised inside it, they would be the error under test
@pytest.mark.parametrize("how", EXPECTED)
@pytest.mark.parametrize("client", [litellm_sync, litellm_async, litellm_async_openai])
async def test_the_same_under_litellm_whose_transport_reports_otherwise(faulty, client, how):
    await _check(faulty, client, how)
