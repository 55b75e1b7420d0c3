"""``llm-cost ledger``: status, corrections and archive of the append-only rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.budget.backend import ArchiveResult, SupportsOverview
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.upkeep import prune_journal, restore
from llm_cost_middleware.budget.rules.overview import count_rows, unsure_rows
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, err, open_ledger, out
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.system_clock import SystemClock

ledger = typer.Typer(help="The append-only rows behind every figure.", no_args_is_help=True)


@ledger.command()
def status(config: ConfigOption = None, url: LedgerOption = None) -> None:
    """Count the rows, and add them up by status."""
    with open_ledger(config, url) as opened:
        backend = opened.backend
        if isinstance(backend, SupportsOverview):
            with tables.working("adding up rows"):
                counts = backend.count_rows()
        else:
            counts = count_rows(tables.counted(opened.rows(), "reading rows"))
    if not counts:
        tables.empty(
            "no rows yet.", "Calls are booked here once a pipeline uses this ledger; llm-cost demo shows some."
        )
        return
    rows = [[kind, state, f"{number:,}", currency.amount(amount)] for kind, state, number, amount in counts]
    tables.show([*tables.names("row", "status"), *tables.figures("rows", "sum")], rows, title="rows of the ledger")
    if any(count.kind == "reserve" for count in counts):
        tables.say("reserve: what was ever held, not what is held now (llm-cost budgets shows that)")


@ledger.command()
def reconcile(
    reservation_id: Annotated[str, typer.Argument(help="The id of an estimated or unconfirmed attempt.")],
    actual: Annotated[str, typer.Argument(help="What it really cost, US dollars.")],
    config: ConfigOption = None,
    url: LedgerOption = None,
) -> None:
    """Correct what one attempt cost, by a new row. The old ones stay."""
    with open_ledger(config, url) as opened:
        receipt = opened.reconcile(reservation_id, actual)
    out.print(f"{receipt.id}: {currency.exact(receipt.amount_nanousd)}")


@ledger.command()
def unconfirmed(config: ConfigOption = None, url: LedgerOption = None) -> None:
    """List the attempts whose cost is an estimate or not known: candidates for ``reconcile``."""
    with open_ledger(config, url) as opened:
        backend = opened.backend
        if isinstance(backend, SupportsOverview):
            with tables.working("looking for rows that are not sure"):
                found = list(backend.unsure_rows())
        else:
            found = unsure_rows(tables.counted(opened.rows(), "reading rows"))
    if not found:
        out.print("every attempt is confirmed")
        return
    rows = [[tables.when(row.at), row.id, row.status, currency.amount(row.amount_nanousd)] for row in found]
    columns = [*tables.names("when", whole=True), *tables.names("id", "status"), *tables.figures("booked")]
    tables.show(columns, rows, title="attempts whose cost is not sure, local time")
    tables.say("correct one: llm-cost ledger reconcile ID AMOUNT")


@ledger.command()
def archive(
    before: Annotated[str, typer.Option(help="Move what was over before this local time: 2026-01, 90d.")],
    to: Annotated[Path | None, typer.Option(help="The file. Default: beside a SQLite ledger, numbered.")] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-file", help="Keep the rows in a file; or roll them up.")] = True,
    config: ConfigOption = None,
    url: LedgerOption = None,
) -> None:
    """Move old rows to a file and leave their sums: no balance, budget or report changes.

    What is open or not exact stays. With --no-file the sums are all that is left of the rows. Interrupted, run it
    again: nothing is lost, nothing counted twice.
    """
    moment = read_moment(before, "--before", now=SystemClock().now, zone=None)
    with open_ledger(config, url) as opened, tables.working("moving rows"):
        moved = opened.archive(moment, MemoSummary(), to, keep=keep)
        # An interrupted archive is finished first, by its own date; only then is this command's date applied.
        while moved.resumed:
            _tell(moved)
            if to is not None and moved.path == to.absolute():
                out.print("run it again, with another --to, for what has grown old since it was begun")
                return
            moved = opened.archive(moment, MemoSummary(), to, keep=keep)
    _tell(moved)


@ledger.command()
def backup(
    to: Annotated[Path, typer.Argument(help="The copy; it must not exist.")],
    config: ConfigOption = None,
    url: LedgerOption = None,
) -> None:
    """Copy the ledger while it is in use. To restore: stop what uses it, put the copy in its place."""
    with open_ledger(config, url) as opened, tables.working("copying"):
        copy = opened.back_up(to)
    out.print(f"copied to {copy}", highlight=False, soft_wrap=True)


@ledger.command("restore")
def restore_archive(
    archived: Annotated[Path, typer.Argument(help="An archive; the files of its journal lie beside it.")],
    to: Annotated[Path, typer.Argument(help="A new SQLite file.")],
) -> None:
    """Put an archive into a ledger of its own, to look at it again: llm-cost report --ledger sqlite:///FILE."""
    if not archived.is_file():
        raise ConfigurationError(f"there is no file {archived}", key="archive")
    with Ledger.open(to) as opened:
        rows = restore(archived, opened.backend, empty=next(opened.rows(), None) is None)
    out.print(f"{rows:,} rows restored to {to}", highlight=False, soft_wrap=True)


@ledger.command()
def prune(
    before: Annotated[str | None, typer.Option(help="Remove lines before this local time: 2026-01, 90d.")] = None,
    keep: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Remove all but the newest so many lines.")
    ] = None,
    config: ConfigOption = None,
    url: LedgerOption = None,
) -> None:
    """Remove old lines of the journal: decisions, outcomes, refusals, cache traces. Money is never removed."""
    moment = None if before is None else read_moment(before, "--before", now=SystemClock().now, zone=None)
    with open_ledger(config, url) as opened, tables.working("removing lines"):
        removed = prune_journal(opened.backend, before=moment, keep=keep)
    out.print(f"{removed:,} lines removed")


@ledger.command()
def erase(
    scope: Annotated[str, typer.Argument(help="The scope of a person, such as user:alice.")],
    config: ConfigOption = None,
    url: LedgerOption = None,
) -> None:
    """Put another name in the place of a person's scope, everywhere. Every sum stays as it was."""
    with open_ledger(config, url) as opened, tables.working("replacing the name"):
        done = opened.erase(scope)
    if done.rows:
        out.print(f"{done.rows:,} rows now say {done.alias}", highlight=False)
    else:  # a misspelt name must not look like a person who was erased
        err.print(f"no row names {scope}", highlight=False, markup=False)
    for alias in done.unfinished:
        err.print(f"an erasure as {alias} was cut short: erase that scope again, too", highlight=False, markup=False)
    for path in done.archives:
        out.print(f"not changed, and may still have the old name: {path}", highlight=False, soft_wrap=True)
    if not done.rows:
        raise typer.Exit(1)


def _tell(moved: ArchiveResult) -> None:
    if moved.path is None and not moved.rows:
        out.print("nothing to archive")
    elif moved.path is None:
        out.print(
            f"{moved.rows:,} rows rolled up; {moved.carried:,} rows carry {currency.exact(moved.settled_nanousd)}"
        )
    else:
        begun = " (begun before)" if moved.resumed else ""
        out.print(
            f"{moved.rows:,} rows, {currency.exact(moved.settled_nanousd)}, moved to {moved.path}{begun}; "
            f"{moved.carried:,} rows carry their sums; {moved.lines:,} lines of the journal lie beside them",
            highlight=False,
            soft_wrap=True,
        )
    if moved.skipped:
        out.print(f"{moved.skipped:,} attempts as old stay: open, or not exact (`llm-cost ledger unconfirmed`)")
