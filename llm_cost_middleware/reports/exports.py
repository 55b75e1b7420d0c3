"""A report as JSON, CSV, Parquet and a dataframe."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.errors import MissingExtraError
from llm_cost_middleware.extras import needed_for, requirement_of

if TYPE_CHECKING:
    import os

    from llm_cost_middleware.reports.report import Report

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute (OWASP, CSV Injection)."""


def plain(value: Any) -> Any:
    """A measure in types that JSON has: an amount as text, exactly."""
    return f"{value:f}" if isinstance(value, Decimal) else value


def to_json(report: Report) -> str:
    """See ``Report``."""
    total = report.total.measures()
    data = {
        "since": _iso(report.since),
        "until": _iso(report.until),
        "by": list(report.columns),
        "rows": [{name: plain(value) for name, value in row.items()} for row in report.to_dicts()],
        "total": {name: plain(value) for name, value in total.items()},
        "counted_in_several_rows": {name: plain(value) for name, value in report.shared.measures().items()},
        "notes": list(report.notes),
    }
    return json.dumps(data, indent=2)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()


def safe_cell(value: Any) -> str:
    """A cell that no spreadsheet computes and no terminal obeys: a quote before a formula, no control codes."""
    if not isinstance(value, str):
        return "" if value is None else str(plain(value))
    text = "".join(char if char.isprintable() else " " for char in value)
    return f"'{text}" if value.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def to_csv(report: Report) -> str:
    """See ``Report``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(report.total.measures())
    writer.writerow([*report.columns, *names])
    for row in report.rows:
        writer.writerow([*map(safe_cell, row.keys), *(safe_cell(value) for value in row.measures().values())])
    return out.getvalue()


def to_parquet(report: Report, path: str | os.PathLike[str]) -> None:
    """See ``Report``."""
    with needed_for("a Parquet file"):
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rows = report.to_dicts()
    measures = report.total.measures()
    fields = [arrow.field(name, arrow.string()) for name in report.columns]
    for name, value in measures.items():
        money = isinstance(value, Decimal) or name.endswith("_usd")
        fields.append(arrow.field(name, arrow.decimal128(38, 9) if money else arrow.int64()))
    table = arrow.Table.from_pylist(rows, schema=arrow.schema(fields))
    with Path(path).open("wb") as file:  # a name alone may be read as an address of another file system
        parquet.write_table(table, file)


def dataframe(report: Report) -> Any:
    """See ``Report``."""
    columns = [*report.columns, *report.total.measures()]
    rows = [[*row.keys, *row.measures().values()] for row in report.rows]
    for name in ("pandas", "polars"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return module.DataFrame(rows, columns=columns) if name == "pandas" else _polars(module, rows, columns)
    raise MissingExtraError("a dataframe", "learn", "pandas", requirement_of("pandas", "learn"))


def _polars(polars: Any, rows: list[list[Any]], columns: list[str]) -> Any:
    return polars.DataFrame(rows, schema=columns, orient="row")
