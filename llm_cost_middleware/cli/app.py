"""Typer application of all commands, which are imported when they are called: ``cli.commands``."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_cost_middleware.cli.commands import Commands

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
    from llm_cost_middleware.cli.loading import begin, end

    begin()
    context.call_on_close(end)
    context.call_on_close(_tell_rate)


def _tell_rate() -> None:
    """Say once by which rate amounts were shown, where no title has."""
    from llm_cost_middleware.cli import currency, tables

    note = currency.untold()
    if note is not None:
        tables.say(note)
