"""``llm-cost dashboard``: the page, served on loopback for as long as the command runs."""

from __future__ import annotations

import os
import webbrowser
from typing import Annotated

import typer

from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, open_ledger
from llm_cost_middleware.cli.prices import open_catalogue
from llm_cost_middleware.dashboard import Dashboard, Source
from llm_cost_middleware.natural_values import read_timezone
from llm_cost_middleware.system_clock import SystemClock

PORT = 8477


def dashboard(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Any but this machine's own demands a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = PORT,
    token: Annotated[
        str | None,
        typer.Option(
            help="Demand this token, 16 characters or more. Made anew at each start without it, where one is demanded.",
            envvar="LLM_COST_DASHBOARD_TOKEN",
        ),
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of days and times: an IANA name; the machine's without it.")] = "local",
    *,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Show spend, budgets, savings, refusals and dear calls as a page, until Ctrl-C. It only reads."""
    if timezone.strip().lower() != "local":
        timezone = read_timezone(timezone)
    with open_ledger(config, ledger) as opened:
        source = Source(opened, open_catalogue(config), now=SystemClock().now, timezone=timezone)
        with Dashboard(source, host=host, port=port, token=token) as server:
            tables.say(f"{server.url}  (Ctrl-C ends it)")
            if not server.loopback:
                tables.say("whoever has this address and its token sees all of it, and so does whoever listens on the")
                tables.say("way: better ssh -L, or a proxy with TLS. See llm-cost help dashboard.")
            if browser and not os.environ.get("CI"):
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                tables.say("ended")
