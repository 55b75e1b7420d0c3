"""``llm-cost export focus``: every booking once, in the columns of the specification, passed by its validator."""

import csv
import io
import json
import shutil
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llm_cost_middleware import CostPipeline, Ledger, cost_context
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports.charges import charges_of
from llm_cost_middleware.reports.focus import columns, focus_rows, split
from llm_cost_middleware.testing import FakeClock

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ServiceCategory",
    "ServiceName",
}  # fmt: skip
"""Of every version; those that are new or gone are named beside it."""
SUPPORTED = (
    "PUBLIC_PRICE_LIST_SUPPORTED", "UNIT_PRICING_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "TAGGING_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "SUB_ACCOUNT_SUPPORTED",
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED", "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED", "REGION_SUPPORTED",
)  # fmt: skip
"""What the specification asks providers for that have it. These have no resources, commitments or virtual currency."""
CONTRADICTED = {"InvoiceId-C-005-C"}
"""Its rules want an invoice to be null (C-004) and not null (C-005) in every row; no booking knows its invoice."""


@pytest.fixture
def ledger(tmp_path, sim, clients):
    """Calls of two providers and teams, one unconfirmed, one booked by hand, one in a month of its own."""
    clock = FakeClock()
    clock.advance(NOON - clock.now())
    url = f"sqlite:///{tmp_path}/ledger.db"
    with CostPipeline({"ledger": {"url": url}, "prices": {"discount": "10%"}}, clock=clock) as pipeline:
        gpt, claude = wrap_openai(clients["openai"], pipeline), wrap_anthropic(clients["anthropic"], pipeline)
        for team, days in (("search", 0), ("=cmd()", 1), ("search", 31)):
            clock.advance(days * 86_400)
            with cost_context(team=team, user="alice", tags=["etl", "nightly"]):
                question = [{"role": "user", "content": "hello"}]
                gpt.chat.completions.create(model="gpt-5-mini", messages=question)
                claude.messages.create(model="claude-haiku-4-5-20251001", max_tokens=50, messages=question)
        pipeline.ledger.book("0.123456789", ["team:ops"], status="unconfirmed")
    return url


def _rows(url, *more):
    config = Path(url.removeprefix("sqlite:///")).with_name("llm-cost.toml")
    config.write_text("prices = {discount = '10%'}")
    done = CliRunner().invoke(app, ["export", "focus", "--ledger", url, "-c", str(config), *more])
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_the_rows_are_the_ledger_to_the_nano_dollar(ledger):
    rows = _rows(ledger)
    with Ledger.open(ledger) as opened:
        booked = opened.balance("global").settled
        charges = charges_of(opened)
    assert (
        sum(Decimal(row["BilledCost"]) for row in rows) == sum(Decimal(row["EffectiveCost"]) for row in rows) == booked
    )
    assert sum(charge.amount_nanousd for charge in charges) == int(booked * 10**9)
    for row in rows:
        quantity = Decimal(row["PricingQuantity"])
        assert Decimal(row["ListUnitPrice"]) * quantity == Decimal(row["ListCost"])
        assert Decimal(row["ContractedUnitPrice"]) * quantity == Decimal(row["ContractedCost"])
        if row["x_BookingStatus"] == "exact":
            assert Decimal(row["ContractedCost"]) <= Decimal(row["ListCost"]) * Decimal("0.91")
            assert abs(Decimal(row["BilledCost"]) - Decimal(row["ContractedCost"])) < Decimal("0.00000001")
    tokens = sum(int(Decimal(row["ConsumedQuantity"])) for row in rows if row["ConsumedUnit"] == "Tokens")
    assert tokens == sum(
        sum(usage.input_tokens + usage.output_tokens for usage in one.usage().values()) for one in charges
    )


def test_models_tiers_and_scopes_stand_where_the_specification_has_room_for_them(ledger):
    rows = _rows(ledger)
    output = next(
        row for row in rows if row["SkuId"].startswith("openai/gpt-5-mini") and row["SkuMeter"].startswith("O")
    )
    model = json.loads(output["SkuPriceDetails"])["x_ModelId"]  # the one that answered
    assert output["SkuId"] == f"openai/{model}/output"
    assert (output["SkuMeter"], output["PricingUnit"]) == ("Output Tokens", "1000000 Tokens")
    assert (output["ListUnitPrice"], output["ContractedUnitPrice"]) == ("2.0", "1.8")
    assert output["SkuPriceId"] == f"openai/{model}/output/standard"
    tags = json.loads(output["Tags"])
    assert (tags["team"], tags["user"], tags["tag/etl"], tags["tag/nightly"]) == ("search", "alice", True, True)
    assert (output["ServiceProviderName"], output["HostProviderName"]) == ("OpenAI", "OpenAI")
    assert (output["ChargePeriodStart"], output["ChargePeriodEnd"]) == ("2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z")
    assert (output["BillingPeriodStart"], output["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
    )
    unsure = next(row for row in rows if row["x_BookingStatus"] == "unconfirmed")
    assert (unsure["BilledCost"], unsure["ServiceProviderName"]) == ("0.123456789", "Unknown")
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert {row["BillingPeriodStart"][:7] for row in _rows(ledger, "--since", "2026-12")} == {"2026-12"}
    assert {row["BillingPeriodStart"][:7] for row in _rows(ledger, "--until", "2026-12")} == {"2026-11"}


def test_each_version_has_its_columns():
    new, old = set(columns("1.4")), set(columns("1.2"))
    assert MANDATORY | {"ServiceProviderName", "HostProviderName", "InvoiceDetailId"} <= new
    assert MANDATORY | {"ProviderName", "PublisherName"} <= old
    assert not new & {"ProviderName", "PublisherName"}
    assert list(columns("1.4")) == sorted(new)


def test_an_empty_ledger_is_a_head(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.open(url).close()
    done = CliRunner().invoke(app, ["export", "focus", "--ledger", url])
    assert done.stdout == ",".join(columns("1.4")) + "\n"
    assert CliRunner().invoke(app, ["export", "focus", "--ledger", url, "--focus-version", "2"]).exit_code


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**12), min_size=1, max_size=12))
def test_parts_add_up_and_none_is_off_by_a_nano_dollar(amount, weights):
    parts = split(amount, weights)
    assert sum(parts) == amount
    if total := sum(weights):
        assert all(abs(part * total - amount * weight) < total for part, weight in zip(parts, weights, strict=True))


def test_rows_of_a_december_end_in_january(tmp_path):
    clock = FakeClock()
    clock.advance(datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp() - clock.now())
    with Ledger.open(f"sqlite:///{tmp_path}/l.db", clock=clock) as opened:
        opened.book(1, ["team:a"])
        (row,) = focus_rows(charges_of(opened), Catalogue())
    assert row["BillingPeriodEnd"] == row["ChargePeriodEnd"] == "2027-01-01T00:00:00Z"


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("focus-validator") is None, reason="needs focus-validator 2, which takes Python 3.12")
def test_the_validator_of_the_specification_passes_the_file(ledger, tmp_path):
    """Its wheel brings the rules of 1.2 alone; those of 1.4 it would fetch, where there is a network."""
    rows = _rows(ledger, "--focus-version", "1.2", "--account", "acme")
    path = tmp_path / "costs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    # it looks for its list of currencies in the folder that it is started in
    (rules,) = Path(shutil.which("focus-validator")).parent.parent.glob("lib/python*/site-packages/focus_validator")
    (tmp_path / "focus_validator").symlink_to(rules)
    command = [
        "focus-validator", "--data-file", path, "--block-download", "--validate-version", "1.2", "--focus-dataset",
        "CostAndUsage", "--applicability-criteria", ",".join(SUPPORTED), "--output-type", "unittest",
        "--output-destination", tmp_path / "result.xml",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    cases = list(ET.parse(tmp_path / "result.xml").getroot().iter("testcase"))  # noqa: S314 - its own, of our file
    failed = {case.get("name").partition(" ")[0] for case in cases if case.find("failure") is not None}
    assert failed == CONTRADICTED, done.stdout[-4000:]
    passed = [case for case in cases if not len(case)]
    assert len(passed) > 250
