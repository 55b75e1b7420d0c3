"""Typer application of all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.administer import pause, resume
from llm_cost_middleware.cli.advise import advise_
from llm_cost_middleware.cli.alerts import alerts
from llm_cost_middleware.cli.anywhere import Commands
from llm_cost_middleware.cli.batches import batches
from llm_cost_middleware.cli.budgets import budgets
from llm_cost_middleware.cli.cache import cache
from llm_cost_middleware.cli.dashboard import dashboard
from llm_cost_middleware.cli.decisions import decisions
from llm_cost_middleware.cli.demo import demo
from llm_cost_middleware.cli.doctor import doctor
from llm_cost_middleware.cli.estimate import estimate
from llm_cost_middleware.cli.export import export
from llm_cost_middleware.cli.help import show_topic
from llm_cost_middleware.cli.init import init
from llm_cost_middleware.cli.ledger import ledger
from llm_cost_middleware.cli.litellm_config import litellm_config
from llm_cost_middleware.cli.loading import begin, end
from llm_cost_middleware.cli.monitoring_files import monitoring
from llm_cost_middleware.cli.prices import prices
from llm_cost_middleware.cli.reconcile import reconcile
from llm_cost_middleware.cli.replay import replay
from llm_cost_middleware.cli.report import report
from llm_cost_middleware.cli.tune import tune

app = typer.Typer(
    name="llm-cost",
    help="What your Claude and OpenAI calls cost, may cost, and would have cost.",
    no_args_is_help=True,
    add_completion=False,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # ``main`` prints errors as one line; a bug keeps its plain traceback
)


def _version(value: bool) -> None:
    if value:
        import llm_cost_middleware

        typer.echo(llm_cost_middleware.__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Costs of Claude and OpenAI calls: past, expected, and under another policy."""
    begin()
    context.call_on_close(end)
    context.call_on_close(_tell_rate)


def _tell_rate() -> None:
    """Say once by which rate amounts were shown, where no title has."""
    note = currency.untold()
    if note is not None:
        tables.say(note)


for _command in (
    demo,
    init,
    report,
    dashboard,
    prices,
    estimate,
    decisions,
    tune,
    replay,
    cache,
    doctor,
    pause,
    resume,
    monitoring,
    reconcile,
):
    app.command()(_command)
app.command("advise")(advise_)
app.command("litellm-config")(litellm_config)
app.command("help")(show_topic)
app.add_typer(budgets, name="budgets")
app.add_typer(batches, name="batches")
app.add_typer(ledger, name="ledger")
app.add_typer(alerts, name="alerts")
app.add_typer(export, name="export")
