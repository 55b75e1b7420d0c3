"""The table of a receipt and a report: as a terminal gets narrow, nothing of it is cut off."""

import io
import re

import pytest
from rich.console import Console

from llm_cost_middleware.cli import totals
from llm_cost_middleware.cli.totals import Total, table_of
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.usage import TokenUsage


def _shown(monkeypatch, width, scale):
    console = Console(width=width, file=io.StringIO())
    monkeypatch.setattr(totals, "out", console)
    console.print(
        table_of(
            {
                "anthropic/claude-haiku-4-5-20251001": Total(
                    43 * scale,
                    TokenUsage(uncached_input=28_170 * scale, output=2_076),
                    NanoUSD(112_425_550 * scale),
                    {},
                ),
                "openai/gpt-5-mini": Total(26, TokenUsage(cache_read=100_096 * scale), NanoUSD(8_415_150), {}),
            },
            "spent",
        )
    )
    return console.file.getvalue()


@pytest.mark.parametrize("scale", [1, 10_000])
@pytest.mark.parametrize("width", [200, 120, 100, 80, 72])
def test_figures_stay_whole(monkeypatch, width, scale):
    shown = _shown(monkeypatch, width, scale)
    assert max(map(len, shown.splitlines())) <= width
    for figure in (28_170 * scale, 100_096 * scale, 2_076, 43 * scale + 26):
        assert f"{figure:,}" in shown
    assert f"${NanoUSD(112_425_550 * scale).usd:,.9f}" in shown


@pytest.mark.parametrize("width", [60, 40, 30])
def test_where_they_cannot_they_are_folded(monkeypatch, width):
    shown = _shown(monkeypatch, width, 10_000)
    assert "…" not in shown
    lines = [line for line in shown.splitlines() if line.strip()]
    assert max(map(len, lines)) <= width
    digits = "".join(re.findall(r"[0-9]", shown))
    assert len(digits) >= len(re.findall(r"[0-9]", _shown(monkeypatch, 200, 10_000)))
