"""``llm-cost demo``: recorded agent conversations through a governed chain and a governed router, and the receipt.

Without a key and without a network: the models are played by the loopback provider of ``simulator``, which computes its
bill independently. The clients are the real ones, over HTTP.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llm_cost_middleware.cli import currency
from llm_cost_middleware.cli.demo.conversations import Conversation, load, model_calls, packaged, tools
from llm_cost_middleware.cli.demo.hosts import SendCall, chain_host, router_host
from llm_cost_middleware.cli.demo.receipt import show
from llm_cost_middleware.cli.loading import err, out
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.sections import DEFAULT_TIERS
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError, LLMCostError
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.money import NanoUSD, parse_usd
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.retry.classify import classify_error

_KEY = "DEMO_API_KEY"
_KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
_TRIAL = 3  # the fourth conversation belongs to a trial user with hardly any budget


def demo(
    conversations: Annotated[
        Path | None, typer.Option(help="A .jsonl or .jsonl.gz file of conversations, instead of the packaged excerpt.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Of everything together, US dollars.")] = "25.00",
    trial_budget: Annotated[str, typer.Option(help="Of the trial user, US dollars.")] = "0.003",
    limit: Annotated[int | None, typer.Option(min=1, help="Play only so many conversations.")] = None,
    *,
    live: Annotated[bool, typer.Option("--live", help="Ask the real providers, with your keys.")] = False,
) -> None:
    """Run recorded agent conversations through a chain and a router under a budget, and print the receipt."""
    for option, amount in (("--budget", budget), ("--trial-budget", trial_budget)):
        parse_usd(amount, what=option)
    if live and (missing := [name for name in _KEYS if not os.environ.get(name)]):
        raise ConfigurationError(f"it asks the real providers: set {' and '.join(missing)}", key="--live")
    chosen = (packaged() if conversations is None else load(conversations))[:limit]
    if not chosen:
        err.print("there is no conversation to play")
        raise typer.Exit(1)
    budgets = [{"scope": "global", "limit": budget}, {"scope": "user:trial", "limit": trial_budget}]
    logging.getLogger("llm_cost_middleware").setLevel(logging.ERROR)  # refusals are counted below
    with _provider(chosen, live=live) as (bill, providers):
        common: dict[str, Any] = {"ledger": {"url": "memory://demo"}, "budgets": budgets, "tiers": list(DEFAULT_TIERS)}
        only_claude = {**providers, "openai": {**providers.get("openai", {}), "api_key_env": "DEMO_NO_KEY"}}
        chain_pipeline = CostPipeline(CostConfig(providers=only_claude, **common))
        router_pipeline = CostPipeline(CostConfig(providers=providers, **common))
        # One ledger URL for both pipelines: the budget holds over both hosts together.
        with chain_pipeline, router_pipeline:
            with err.status("loading LangChain and LiteLLM"):
                schemas = tools()
                hosts = (
                    ("LangChain chain", chain_pipeline, chain_host(chain_pipeline, schemas)),
                    ("LiteLLM router", router_pipeline, router_host(router_pipeline, schemas)),
                )
            playback = _Playback(bill)
            playback.play(chosen, hosts)
            equal = show(
                [chain_pipeline, router_pipeline],
                refused=playback.refused,
                calls=playback.sent,
                agreed=playback.agreed,
                bill_nanousd=None if live else playback.billed(),
                baseline=CostConfig().tiers[-1].models[0],
            )
    if not equal:
        raise typer.Exit(1)


class _Playback:
    """Playback of conversations, which compares ledger and bill after every call."""

    def __init__(self, bill: Any) -> None:
        self._bill = bill
        self.sent = self.agreed = self.refused = 0

    def billed(self) -> NanoUSD:
        return NanoUSD(self._bill.total_nanousd)

    def play(self, conversations: list[Conversation], hosts: tuple[tuple[str, CostPipeline, SendCall], ...]) -> None:
        total = sum(1 for conversation in conversations for _ in model_calls(conversation))
        columns = (
            TextColumn("{task.description:16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err) as progress:
            task = progress.add_task("", total=total)
            for number, conversation in enumerate(conversations):
                name, pipeline, send = hosts[number % len(hosts)]
                user = "trial" if number == _TRIAL else "regular"
                progress.update(task, description=name)
                for call in model_calls(conversation):
                    attributes = {"user": user, "conversation": call.conversation, "site": "airline-agent"}
                    self._one(pipeline, send, call.messages, attributes)
                    progress.advance(task)

    def _one(
        self, pipeline: CostPipeline, send: SendCall, messages: list[dict[str, Any]], attributes: dict[str, Any]
    ) -> None:
        # The difference, not the totals: an earlier call that disagreed must not be counted against this one.
        before = None if self._bill is None else pipeline.ledger.balance("global").settled_nanousd - self.billed()
        try:
            send(messages, attributes)
        except BudgetExceededError:
            self.refused += 1
            return
        except Exception as error:
            if self._bill is not None or isinstance(error, LLMCostError):  # of the loopback provider: a fault of ours
                raise
            failure, spent = classify_error(error), currency.exact(pipeline.ledger.balance("global").settled_nanousd)
            # not the provider's own words, which may quote a key
            told = f"a call failed: {failure.reason}, after {self.sent:,} calls and {spent}"
            raise LLMCostError(told) from None
        self.sent += 1
        if before is not None:
            self.agreed += pipeline.ledger.balance("global").settled_nanousd - self.billed() == before


@contextmanager
def _provider(conversations: list[Conversation], *, live: bool) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the provider's bill (``None`` for the real ones), and the configuration that reaches it."""
    if live:
        yield None, {}
        return
    with needed_for("llm-cost demo"):
        from llm_cost_middleware.simulator import Replay, Simulator

    os.environ[_KEY] = "no-key-needed"
    # ``keep``: a long demo would otherwise hold the body of every request in memory.
    with Simulator(responder=Replay(conversations), keep_bodies=False, keep=64) as simulator:
        out.print(f"a loopback provider plays {len(conversations)} recorded conversations at {simulator.url}")
        yield (
            simulator.bill,
            {
                "anthropic": {"base_url": simulator.anthropic_url, "api_key_env": _KEY},
                "openai": {"base_url": simulator.openai_url, "api_key_env": _KEY},
            },
        )
