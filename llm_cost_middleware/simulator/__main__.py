"""``python -m llm_cost_middleware.simulator``: runs until interrupted; prints its addresses as one line of JSON."""

import argparse
import gzip
import json
import signal
import sys
import threading
from pathlib import Path

from .answers import Responder
from .replay import Replay
from .responders import BUILT_IN
from .simulator import Simulator

_ADDRESSES = ("url", "anthropic_url", "openai_url", "azure_url", "bedrock_url", "vertex_url", "port")


def main(arguments: list[str] | None = None) -> int:
    """Run a simulator until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m llm_cost_middleware.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--responder", choices=sorted(BUILT_IN), default="echo")
    parser.add_argument("--replay", type=Path, help="conversations to play, JSON lines (.gz too)")
    parser.add_argument(
        "--worst-case-tokenizer", action="store_true", help="count tokens as badly as real tokenizers can"
    )
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--chunk-chars", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=int, help="remember only so many requests")
    parser.add_argument("--no-bodies", action="store_true", help="do not keep request bodies")
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    if chosen.until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=(over,), daemon=True).start()
    simulator = Simulator(
        responder=_replay(chosen.replay) if chosen.replay else BUILT_IN[chosen.responder],
        worst_case_tokenizer=chosen.worst_case_tokenizer,
        latency_s=chosen.latency,
        keep_bodies=not chosen.no_bodies,
        keep=chosen.keep,
        chunk_chars=chosen.chunk_chars,
        host=chosen.host,
        port=chosen.port,
        seed=chosen.seed,
    )
    with simulator as sim:
        addresses = {name: getattr(sim, name) for name in _ADDRESSES}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        over.wait()
    return 0


def _replay(path: Path) -> Responder:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return Replay([json.loads(line) for line in lines])


def _watch_stdin(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    sys.exit(main())
