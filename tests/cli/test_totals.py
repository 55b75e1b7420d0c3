"""The receipt of the demo and the findings of doctor: as a terminal gets narrow, nothing of them is cut off."""

import io
import re

import pytest

from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.demo import receipt
from llm_cost_middleware.cli.loading import PlainConsole
from llm_cost_middleware.cli.totals import Total
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.usage import TokenUsage


def _shown(monkeypatch, width, scale, *, terminal=True):
    text = io.StringIO()
    console = PlainConsole(width=width, file=text, force_terminal=terminal, no_color=True)
    monkeypatch.setattr(tables, "out", console)
    monkeypatch.setattr(tables.sys, "stdout", text)
    receipt.show_models(
        {
            "anthropic/claude-haiku-4-5-20251001": Total(
                43 * scale, TokenUsage(uncached_input=28_170 * scale, output=2_076), NanoUSD(112_425_550 * scale), {}
            ),
            "openai/gpt-5-mini": Total(26, TokenUsage(cache_read=100_096 * scale), NanoUSD(8_415_150), {}),
        }
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("scale", [1, 10_000])
@pytest.mark.parametrize("width", [200, 120, 100, 80, 72, 40])
def test_figures_stay_whole(monkeypatch, width, scale, terminal):
    shown = _shown(monkeypatch, width, scale, terminal=terminal)
    assert "…" not in shown
    if terminal:
        assert max(map(len, shown.splitlines())) <= width
    for figure in (28_170 * scale, 100_096 * scale, 2_076, 43 * scale + 26):
        assert f"{figure:,}" in shown
    assert f"${NanoUSD(112_425_550 * scale).usd:,.9f}" in shown


def test_an_empty_receipt_is_a_total_of_nothing(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(tables, "out", PlainConsole(width=80, file=text, force_terminal=True, no_color=True))
    receipt.show_models({})
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
    assert re.search(r"total\s+0\s+0\s+0\s+0\s+0\s+\$0\.000000000", shown)
