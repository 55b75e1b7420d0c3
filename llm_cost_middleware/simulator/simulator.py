"""`Simulator`: the provider in a thread of its own, on a free loopback port."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from .admin import add_admin
from .answers import Responder
from .anthropic.counting import CountingRules
from .app import HttpFrontend
from .bedrock.service import BedrockAccount
from .bill import Bill
from .clock import SimClock
from .engine import ServingEngine
from .faults import Exchange, Fault, FaultScript, Match
from .pace import BatchPace
from .routes import application
from .tiers import TierMarket

_STOP_S = 10.0


class Simulator:
    """Loopback Anthropic, OpenAI, Azure, Bedrock and Vertex; a context manager for sync and async tests alike.

    Args:
        responder: Makes the model's answers; `responders.echo` by default. May be replaced at any time.
        worst_case_tokenizer: Count tokens at the highest density measured with real tokenizers.
        openai_vocabulary: Encodes text as OpenAI's models do; without it their text costs the rule of `tokens`.
        latency_s: Seconds before every answer, so that concurrent calls overlap.
        keep_bodies: Keep the parsed body of every request in `requests`.
        keep: How many requests to remember; all by default.
        chunk_chars: Characters in a stream's event.
        clock: The clock of cache lifetimes and `created` stamps; a fresh `SimClock` by default.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        seed: Ids are the same in every run with the same seed.
        sleep: Waits for the latency; another one can hold an answer back until a moment on ``clock``.
    """

    def __init__(
        self,
        *,
        responder: Responder | None = None,
        worst_case_tokenizer: bool = False,
        openai_vocabulary: Callable[[str], Sequence[int]] | None = None,
        latency_s: float = 0.0,
        keep_bodies: bool = True,
        keep: int | None = None,
        chunk_chars: int = 16,
        clock: SimClock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.clock = clock or SimClock()
        self._faults = FaultScript()
        self._engine = ServingEngine(
            clock=self.clock,
            responder=responder,
            worst_case_tokenizer=worst_case_tokenizer,
            seed=seed,
            openai_vocabulary=openai_vocabulary,
        )
        self._frontend = HttpFrontend(
            self._engine,
            self._faults,
            latency_s=latency_s,
            keep_bodies=keep_bodies,
            keep=keep,
            chunk_chars=chunk_chars,
            sleep=sleep,
        )
        self.bedrock = BedrockAccount()
        self._host, self._port = host, port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"http://{self._host}:{self._port}"

    @property
    def anthropic_url(self) -> str:
        """`base_url` of an Anthropic client."""
        return self.url

    @property
    def openai_url(self) -> str:
        """`base_url` of an OpenAI client."""
        return f"{self.url}/v1"

    @property
    def azure_url(self) -> str:
        """`azure_endpoint` of an AzureOpenAI client; any key is accepted, and a deployment bears its model's name."""
        return self.url

    @property
    def bedrock_url(self) -> str:
        """`base_url` of an AnthropicBedrock client, `endpoint_url` of boto3's; the keys are in `bedrock.signing`."""
        return self.url

    @property
    def vertex_url(self) -> str:
        """`base_url` of an AnthropicVertex client; any token is accepted."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        """Port it listens on once started."""
        return self._port

    @property
    def bill(self) -> Bill:
        """Bill so far."""
        return self._engine.bill

    @property
    def requests(self) -> tuple[Exchange, ...]:
        """Every request that was received, in order."""
        return tuple(self._frontend.exchanges)

    @property
    def request_count(self) -> int:
        """Number of requests received since the start or the last reset."""
        return self._frontend.count

    @property
    def responder(self) -> Responder:
        """Responder that makes the model's answers."""
        return self._engine.responder

    @responder.setter
    def responder(self, responder: Responder) -> None:
        self._engine.responder = responder

    @property
    def latency_s(self) -> float:
        """Real seconds before every answer."""
        return self._frontend.latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self._frontend.latency_s = seconds

    @property
    def counting(self) -> CountingRules:
        """Rate limit and accuracy of Anthropic's ``count_tokens``; may be replaced at any time."""
        return self._frontend.counting

    @counting.setter
    def counting(self, rules: CountingRules) -> None:
        self._frontend.counting = rules

    @property
    def tiers(self) -> TierMarket:
        """Capacity and delays of OpenAI's service tiers; may be replaced at any time."""
        return self._frontend.tiers

    @tiers.setter
    def tiers(self, market: TierMarket) -> None:
        self._frontend.tiers = market

    @property
    def batch_pace(self) -> BatchPace:
        """How fast batches that are created from now on are worked off; may be replaced at any time."""
        return self._engine.pace

    @batch_pace.setter
    def batch_pace(self, pace: BatchPace) -> None:
        self._engine.pace = pace

    def script(self, fault: Fault, times: int = 1, match: Match | None = None) -> None:
        """Queue a fault for the next `times` requests, or the next that `match` accepts."""
        self._faults.add(fault, times=times, match=match)

    @property
    def pending_faults(self) -> int:
        """Number of scripted faults that no request has taken yet."""
        return len(self._faults)

    def reset(self, *, caches: bool = True) -> None:
        """Forget requests, bill and scripted faults, and (by default) the prompt caches."""
        self._faults.clear()
        self._frontend.exchanges.clear()
        self._frontend.count = 0
        self._engine.bill.clear()
        if caches:
            self._engine.forget_caches()

    def start(self) -> Self:
        """Listen; returns once requests are accepted.

        Raises:
            OSError: The port is taken.
        """
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="llm-simulator", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._thread is None or self._loop is None or self._done is None:
            return
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(_STOP_S)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._listen(ready))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that called start()
            self._failure = error
        finally:
            ready.set()

    async def _listen(self, ready: threading.Event) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        app = application(self._frontend, lambda app: add_admin(app, self), bedrock=self.bedrock)
        # handler_cancellation: without it aiohttp does not tell a handler that its client left, and a cut stream would
        # be billed in full.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port, backlog=512)
            await site.start()
            self._port = runner.addresses[0][1]
            ready.set()
            await self._done.wait()
        finally:
            await runner.cleanup()
