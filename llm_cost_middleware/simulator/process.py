"""`SimulatorProcess`: the simulator as a process of its own, for tests that need several."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .bill import BillLine, Tokens
from .faults import Fault

_STOP_S = 10.0


class SimulatorProcess:
    """Starts ``python -m llm_cost_middleware.simulator`` and talks to it; it ends with this process, however that ends.

    Args:
        arguments: More command-line arguments, such as ``("--responder", "fill", "--worst-case-tokenizer")``.
        python: The interpreter.
    """

    def __init__(self, arguments: Sequence[str] = (), *, python: str = sys.executable) -> None:
        self._command = [python, "-m", __package__, "--port", "0", "--until-stdin-closes", *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.url = self.anthropic_url = self.openai_url = ""

    def start(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: It ended before it listened.
        """
        # Its standard input is a pipe from here: it closes with this process, also when this one is killed.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, arguments from the test
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],  # where the package is found, installed or not
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            code = self._process.wait()
            self._close_pipes()
            raise RuntimeError(f"the simulator ended with status {code} before it listened")
        addresses = json.loads(line)
        self.url, self.anthropic_url, self.openai_url = (
            addresses["url"],
            addresses["anthropic_url"],
            addresses["openai_url"],
        )
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._close_pipes()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout) if self._process else ():
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def total_nanousd(self) -> int:
        """Sum of the bill."""
        return int(self.call("bill")["total_nanousd"])

    @property
    def lines(self) -> tuple[BillLine, ...]:
        """Lines of the bill."""
        return tuple(BillLine(**row | {"tokens": Tokens(**row["tokens"])}) for row in self.call("bill")["lines"])

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every request that was received, keys left out."""
        return list(self.call("requests")["requests"])

    @property
    def request_count(self) -> int:
        """Number of received requests."""
        return int(self.call("requests")["count"])

    def script(self, fault: Fault, times: int = 1, **match: str) -> None:
        """Queue a fault; `match` may give ``path``, ``model`` and ``provider``."""
        self.call("script", {"fault": asdict(fault), "times": times, **match})

    def advance(self, seconds: float) -> float:
        """Move its clock."""
        return float(self.call("clock", {"advance": seconds})["now"])

    def reset(self) -> None:
        """Forget bill, requests, faults and caches."""
        self.call("reset", {})

    def call(self, what: str, order: Any = None) -> dict[str, Any]:
        """One call to ``/__sim__/``: a GET, or a POST where there is something to say."""
        data = None if order is None else json.dumps(order).encode()
        request = urllib.request.Request(f"{self.url}/__sim__/{what}", data)  # noqa: S310 - our own loopback address
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - same
            return dict(json.load(reply))
