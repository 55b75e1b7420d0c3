"""``llm-cost batches``: what is on its way at half price, whoever sent it; collected and cancelled from here too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_cost_middleware.batches import BatchProgress, Collected
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, load_config, open_ledger, out
from llm_cost_middleware.config import CostConfig, says_anything
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.pipeline import CostPipeline

batches = typer.Typer(
    help="Batches that were sent at half price: where they stand, their answers.", no_args_is_help=True
)
BatchArgument = Annotated[str, typer.Argument(help="The id of a batch: ours, or the provider's.")]
ToOption = Annotated[
    Path | None, typer.Option(help="Write the answers to this new file, a JSON line each; readable by you alone.")
]
_CLIENTS = {
    "anthropic": ("anthropic", "Anthropic", "ANTHROPIC_API_KEY", "base_url"),
    "openai": ("openai", "OpenAI", "OPENAI_API_KEY", "base_url"),
    # the SDK itself reads AZURE_OPENAI_ENDPOINT and OPENAI_API_VERSION
    "azure": ("openai", "AzureOpenAI", "AZURE_OPENAI_API_KEY", "azure_endpoint"),
}


@batches.command("list")
def list_batches(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that are settled or given back too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the batches that the ledger knows. Asks no provider."""
    with _pipeline(config, ledger) as pipeline:
        known = pipeline.batches()
    found = [one for one in known if every or one.state in {"created", "sent"}]
    if as_json:
        out.print_json(json.dumps([_row(one) for one in found]))
    elif not found:
        advice = "llm-cost batches list --all shows those that are over." if known else "pipeline.batch() makes some."
        tables.empty("no batch is on its way.", advice)
    else:
        _show(found, {})


@batches.command()
def show(batch: BatchArgument, config: ConfigOption = None, ledger: LedgerOption = None) -> None:
    """Show where a batch stands, by the ledger and, where a key is there, by its provider."""
    with _pipeline(config, ledger) as pipeline:
        found = [one for one in pipeline.batches() if batch in {one.batch_id, one.key, one.provider_batch_id}]
        if not found:
            raise ConfigurationError(f"this ledger knows no batch {batch!r}; see `llm-cost batches list`")
        clients = _clients(pipeline.config, {one.provider for one in found if one.state == "sent"}, demanded=False)
        told = pipeline.batch_status(batch, client=clients) if clients else {}
    _show(found, told)


@batches.command()
def collect(
    batch: BatchArgument, config: ConfigOption = None, ledger: LedgerOption = None, to: ToOption = None
) -> None:
    """Book what has ended of a batch, and write its answers to a file. Again changes nothing."""
    _end(batch, config, ledger, to, cancel=False)


@batches.command()
def cancel(batch: BatchArgument, config: ConfigOption = None, ledger: LedgerOption = None, to: ToOption = None) -> None:
    """Cancel a batch. What it has answered is billed, and booked; the rest of its money is given back."""
    _end(batch, config, ledger, to, cancel=True)


def _end(batch: str, config: Path | None, url: str | None, to: Path | None, *, cancel: bool) -> None:
    if to is not None and to.exists():
        raise ConfigurationError(f"{to} is there already; name a new file", key="--to")
    if to is not None and not to.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {to.absolute().parent}", key="--to")
    with _pipeline(config, url) as pipeline:
        providers = {
            one.provider for one in pipeline.batches() if batch in {one.batch_id, one.key, one.provider_batch_id}
        }
        clients = _clients(pipeline.config, providers, demanded=True)
        with tables.working("asking the provider"):
            act = pipeline.cancel_batch if cancel else pipeline.collect_batch
            collected = act(batch, client=clients)
    if to is not None and (collected.responses or collected.errors):  # an empty file would stand in the next one's way
        _write(collected, to)
    parts = [f"{len(collected.responses):,} answered", f"{len(collected.errors):,} without an answer"]
    if collected.pending:
        parts.append(f"{collected.pending:,} on their way")
    out.print(f"{collected.batch_id}: {', '.join(parts)}; {currency.exact(collected.cost_nanousd)}")
    if to is None and collected.responses:
        tables.say("--to FILE writes the answers; the provider keeps them for 29 days (Anthropic) or 30 (OpenAI)")
    if collected.pending:
        raise typer.Exit(1)


@contextmanager
def _pipeline(path: Path | None, url: str | None) -> Iterator[CostPipeline]:
    alone = url is not None and path is None and not says_anything()
    given = CostConfig() if alone else load_config(path)
    with open_ledger(path, url) as opened:
        # without the budgets of the file: whoever looks after a batch changes none
        config = CostConfig(
            providers=given.providers, platforms=given.platforms, prices=given.prices, mode=given.mode
        )  # fmt: skip
        with CostPipeline(config, ledger=opened) as pipeline:
            yield pipeline


def _clients(config: CostConfig, providers: set[str], *, demanded: bool) -> list[Any]:
    clients = []
    for name in sorted(providers):
        sdk, kind, variable, address = _CLIENTS[name]
        options = config.access(name)
        variable = options.api_key_env or variable
        key = os.environ.get(variable)
        if not key:
            if demanded:
                raise ConfigurationError(f"is not set, and only {name} has the answers", key=variable)
            continue
        with needed_for(f"batches of {name}"):
            make = getattr(import_module(sdk), kind)
        try:
            clients.append(make(api_key=key, **({address: options.base_url} if options.base_url else {})))
        except ValueError as error:  # of Azure: where it is, or which version of its API is spoken
            raise ConfigurationError(str(error), key=f"platforms.{name}") from None
    return clients


def _write(collected: Collected, to: Path) -> None:
    lines: list[tuple[int, dict[str, Any]]] = [
        (place, {"place": place, "response": response.to_dict()}) for place, response in collected.responses.items()
    ]
    for place, error in collected.errors.items():
        lines.append((place, {"place": place, "error": error.reason, "detail": error.detail}))
    # answers are the user's: nobody else reads them, and no file is written over
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps(line, ensure_ascii=False) + "\n" for _, line in sorted(lines, key=lambda one: one[0])
        )


def _show(found: Sequence[BatchProgress], told: dict[str, str]) -> None:
    rows = [
        [
            one.batch_id, one.provider, one.model, f"{one.requests:,}", one.state, told.get(one.key, ""),
            tables.when(one.at), currency.amount(one.held_nanousd),
            "" if one.cost_nanousd is None else currency.amount(one.cost_nanousd), one.provider_batch_id,
        ]
        for one in found
    ]  # fmt: skip
    columns = [
        *tables.names("batch", "provider", "model"), *tables.figures("requests"), *tables.names("state"),
        *tables.names("at the provider", sparse=True), *tables.names("made", whole=True), *tables.figures("held"),
        *tables.figures("cost", sparse=True), *tables.names("provider's id", sparse=True),
    ]  # fmt: skip
    tables.show(columns, rows, title="batches")


def _row(one: BatchProgress) -> dict[str, Any]:
    row = one._asdict()
    for name in ("held", "cost"):
        amount = row.pop(f"{name}_nanousd")
        row[f"{name}_usd"] = None if amount is None else f"{amount.usd:f}"
    return row
