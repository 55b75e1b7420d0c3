"""The commands of ``llm-cost``: their names, what the help says of each, and where they lie.

A command is imported when it is called; the list of all of them imports none.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from string import digits
from typing import Any

from typer import BadParameter, Typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from llm_cost_middleware.cli.anywhere import split_off
from llm_cost_middleware.extras import needed_for

COMMANDS: Mapping[str, str] = {
    "demo": "Run recorded agent conversations through a chain and a router under a budget, and print the receipt.",
    "init": (
        "Write a commented llm-cost.toml: every key with its default, a ledger in a file, and today's models as tiers."
    ),
    "report": "Who spent what: llm-cost report --by team,model --over day --since yesterday --until today.",
    "dashboard": "Show spend, budgets, savings, refusals and dear calls as a page, until Ctrl-C. It only reads.",
    "prices": "Show what models charge, in US dollars a million tokens; one model with every way it can be served.",
    "estimate": "Say what the requests of a file would cost: at most, and by an answer of the expected length.",
    "decisions": "Show, filter and explain routing decisions.",
    "tune": "Learn a routing policy and write it to a file, or refuse (exit code 1) where the data do not support one.",
    "replay": (
        "Replay the decision log under another policy: bill and quality, by call site, with intervals. No call is made."
    ),
    "cache": "Show hit rate, money saved and wasted for each prefix and call site, and name what broke it.",
    "doctor": (
        "Try what is installed and configured; list what is not governed, hidden retries that are on, and missing keys."
    ),
    "pause": "Stop the calls of a scope in every process, at once. Calls that are under way end as they would.",
    "resume": "Let the calls of a paused scope go on.",
    "monitoring": (
        "Write a Grafana dashboard, alert rules for Prometheus, and a configuration that scrapes four processes."
    ),
    "reconcile": "Hold the ledger against a provider's exports: what differs, by day, model, project and tier.",
    "advise": "Rank what would have saved how much: each call priced again, with the evidence and the lines to write.",
    "litellm-config": (
        "Write the config.yaml of a LiteLLM proxy that routes, holds budgets and books, to standard output."
    ),
    "help": "Explain a topic: times, dimensions, errors, promises, settings, the proxy, learning and others.",
    "budgets": "Budgets: what every scope may spend, has spent, and has reserved.",
    "batches": "Batches that were sent at half price: where they stand, their answers.",
    "ledger": "The append-only rows behind every figure.",
    "alerts": "What alerts watch for: look now, try the targets, list what was told.",
    "export": "Write what was booked in the form of another tool.",
}
"""What the help says of each: the first sentences of the command's own."""
_ELSEWHERE = {
    "pause": "administer:pause",
    "resume": "administer:resume",
    "budgets": "administer:budgets",  # with the subcommands that it adds
    "monitoring": "monitoring_files:monitoring",
    "advise": "advise:advise_",
    "litellm-config": "litellm_config:litellm_config",
    "help": "help:show_topic",
}
"""Modules and names of those that lie under another than their own."""


class Commands(TyperGroup):
    """All commands: the options of a command may stand before its name."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update({name: TyperCommand(name, help=text) for name, text in COMMANDS.items()})
        self._loaded: set[str] = set()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See ``click.Command``: the options of a command behind its name and all else."""
        options, others = split_off(args)
        at = others.index("--") if "--" in others else len(others)
        return super().parse_args(ctx, [*others[:at], *options, *others[at:]])

    def invoke(self, ctx: Any) -> Any:
        """See ``click.Command``: a negative amount, which the parser takes for an option, is told as one."""
        words = list(ctx.args)
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError:
            wrong = [word for word in words if word != word.encode(errors="replace").decode()]
            if not wrong:
                raise
            raise BadParameter(f"{wrong[0]!r} is no text in UTF-8", ctx=ctx) from None
        except Exception as error:
            word = getattr(error, "option_name", None) or ""  # click's error has it, of which typer may bring a copy
            if word[1:2] not in {*digits, *"$."}:
                raise
            said = f"{word} …: no amount is negative; where it is none, write -- before it"
            raise BadParameter(said, ctx=getattr(error, "ctx", None)) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See ``click.Group``: the command that is called is imported now."""
        self.load(*args[:1])
        return super().resolve_command(ctx, args)

    def load(self, *names: str) -> None:
        """Put commands in the places that their names hold; words that name none are left alone."""
        for name in COMMANDS.keys() & set(names) - self._loaded:
            module, _, attribute = _ELSEWHERE.get(name, f"{name}:{name}").partition(":")
            with needed_for("llm-cost"):
                command, only = getattr(import_module(f"llm_cost_middleware.cli.{module}"), attribute), Typer()
            if isinstance(command, Typer):
                only.add_typer(command, name=name)
            else:
                only.command(name)(command)
            self.commands.update(get_group(only).commands)
            self._loaded.add(name)
