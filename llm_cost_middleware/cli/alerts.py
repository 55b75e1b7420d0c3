"""``llm-cost alerts``: look and tell now (from cron), try the targets, list what was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from llm_cost_middleware.alerts.channels import open_channel
from llm_cost_middleware.alerts.record import AlertRecord
from llm_cost_middleware.alerts.service import AlertService
from llm_cost_middleware.alerts.settings import AlertConfig, shown_target
from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, load_config, open_ledger, out
from llm_cost_middleware.cli.prices import open_catalogue
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.events import AlertRaised
from llm_cost_middleware.system_clock import SystemClock

alerts = typer.Typer(help="What alerts watch for: look now, try the targets, list what was told.", no_args_is_help=True)


@alerts.command()
def check(config: ConfigOption = None, ledger: LedgerOption = None) -> None:
    """Look at the ledger now, tell what is new, and try again whom nobody could reach. For cron."""
    with _service(config, ledger) as service:
        new = service.look(everything=True)
        told = service.deliver()
        left = [one for one in service.record.waiting() if service.knows(one.target)]
    for alert in new:
        out.print(alert.text, highlight=False, markup=False, soft_wrap=True)
    out.print(f"{len(new):,} new, {told:,} told, {len(left):,} could not be told yet", highlight=False)
    if left:
        raise typer.Exit(1)


@alerts.command("test")
def try_targets(config: ConfigOption = None) -> None:
    """Tell every target that the configuration names under ``alerts`` a test."""
    rules = _rules(config)
    alert = AlertRaised(
        "",
        SystemClock().now(),
        "test",
        "test",
        "global",
        "none",
        "this is a test of [[alerts]] by llm-cost alerts test",
    )
    failed = 0
    for target in dict.fromkeys(target for rule in rules for target in rule.to):
        problem = open_channel(target).tell(alert)
        failed += bool(problem)
        out.print(f"{shown_target(target)}: {problem or 'told'}", highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@alerts.command("list")
def list_(config: ConfigOption = None, ledger: LedgerOption = None) -> None:
    """List what was raised: when, how often it was told, what it said."""
    with open_ledger(config, ledger) as opened:
        record = AlertRecord(opened, SystemClock().now)
        record.catch_up()
        found = record.history()
    if not found:
        tables.empty("no alert was raised yet.", "llm-cost help alerts says how to have some.")
        return
    rows = [
        [tables.when(alert.at), alert.kind, f"{told} of {wanted}", alert.text, alert.id]
        for alert, told, wanted in found
    ]
    tables.show(
        [*tables.names("when", whole=True), *tables.names("alert", "told", "what", "id")], rows,
        title="alerts, local time",
    )  # fmt: skip


def _rules(config: Path | None) -> tuple[AlertConfig, ...]:
    rules = load_config(config).alerts
    if not rules:
        raise ConfigurationError("there are none in the configuration: llm-cost help alerts", key="alerts")
    return rules


@contextmanager
def _service(config: Path | None, ledger: str | None) -> Iterator[AlertService]:
    rules = _rules(config)
    with open_ledger(config, ledger) as opened:
        yield AlertService(rules, opened, open_catalogue(config), SystemClock())
