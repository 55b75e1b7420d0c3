"""``llm-cost doctor``: what in this environment is not governed, and what is missing."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from llm_cost_middleware.budget.backend import redacted
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.leased import leased_amounts
from llm_cost_middleware.budget.ledger.schemes import is_memory, read_options
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.doors import try_doors
from llm_cost_middleware.cli.init import todays_tiers
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, load_config, open_ledger
from llm_cost_middleware.cli.platform_checks import check_platforms
from llm_cost_middleware.cli.prices import OLD_DAYS
from llm_cost_middleware.cli.siblings import siblings
from llm_cost_middleware.config import CostConfig, says_anything
from llm_cost_middleware.errors import ConfigurationError, LLMCostError, PriceNotFoundError
from llm_cost_middleware.extras import requirement_of
from llm_cost_middleware.money import ZERO
from llm_cost_middleware.platform import is_inside, why_outside
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.retirements import SOON_DAYS, find_retirement
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.sdk_clients.unwrapped import alive
from llm_cost_middleware.system_clock import SystemClock

_GOOD, _LOOK, _BAD = "ok", "look", "no"
_COLOURS = {_GOOD: "green", _LOOK: "yellow", _BAD: "red"}
_PACKAGES = (
    *((name, f"wrap_{name}", None) for name in NAMES),
    ("langchain-core", "guard, instrument, CostCallbackHandler", None),
    ("langchain", "CostMiddleware", "langchain"),
    *((f"langchain-{name}", "guard", "langchain") for name in NAMES),
    ("langchain-litellm", "ChatLiteLLMRouter on a CostAwareRouter", "langchain"),
    ("langchain-aws", "guard of a ChatBedrockConverse", "aws"),
    ("boto3", "clients of Bedrock", "aws"),
    ("langchain-google-vertexai", "guard of a ChatAnthropicVertex", "google"),
    ("google-auth", "clients of Vertex", "google"),
    ("litellm", "CostAwareRouter", None),
    ("fastapi", "callback of the LiteLLM proxy", "proxy"),
    ("redis", "ledgers on redis://", "redis"),
    ("apprise", "alerts beyond the log and webhooks", "alerts"),
    ("psycopg", "ledgers on postgresql://", "postgres"),
    ("opentelemetry-api", "OpenTelemetryObserver", "otel"),
    ("opentelemetry-exporter-prometheus", "metrics at prometheus_port", "otel"),
    ("scikit-learn", "llm-cost tune", "learn"),
    ("pyarrow", "labels in Parquet for llm-cost tune", "learn"),
)
"""Distributions, what they are for, and the extra that brings each; ``None`` where a plain installation has it."""


def doctor(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    app: Annotated[
        str, typer.Option("--app", metavar="MODULE", help="Import it and name the SDK clients that nobody wrapped.")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where something needs a look.")] = False,
) -> None:
    """Try what is installed and configured; list what is not governed, hidden retries that are on, and missing keys.

    A line with "no" is a failure: exit code 2 for a configuration, a ledger or prices that cannot be used, else 1.
    """
    findings = [*_configuration(config, ledger), *_packages(), *_surroundings(), *(_clients(app) if app else ())]
    columns = [tables.Column("", whole=True, styles=_COLOURS), *tables.names("what", "finding")]
    tables.show(columns, findings, title="llm-cost doctor")
    failed = {what for state, what, _ in findings if state == _BAD}
    if failed & {"configuration", "ledger", "prices"}:
        raise typer.Exit(2)
    if failed or (strict and any(state != _GOOD for state, _, _ in findings)):
        raise typer.Exit(1)


def _configuration(path: Path | None, url: str | None) -> list[tuple[str, str, str]]:
    try:
        config = load_config(path)
    except ConfigurationError as error:
        if path is None and not says_anything():
            none, defaults = f"{error} Below stands what the defaults give.", CostConfig()
            kept = _ledger(path, url, defaults)
            return [(_LOOK, "configuration", none), *kept, *_money(defaults, kept), *_keys(defaults)]
        # One that is there and cannot be read is not replaced by the defaults: no call would be made with those.
        return [(_BAD, "configuration", f"{error}. Ledger, budgets, prices and keys were not looked at")]
    return [
        (_GOOD, "configuration", f"mode {config.mode}, ledger {redacted(config.ledger.url)}"),
        *(kept := _ledger(path, url, config)),
        *_money(config, kept),
        *_keys(config),
    ]


_BUDGETS = "budgets"


def _ledger(path: Path | None, given: str | None, config: CostConfig) -> list[tuple[str, str, str]]:
    """Whether the ledger opens and outlives its process; a SQLite file that is not there is not made."""
    url = given or config.ledger.url
    try:
        read_options(url, None, config.ledger.tenant, config.ledger.durability)
    except ConfigurationError as error:
        return [(_BAD, "ledger", str(error))]
    if is_memory(url):
        return [(_LOOK, "ledger", "memory: one process, forgotten when it ends; sqlite:///llm-cost.db keeps it")]
    shown = redacted(url)
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.exists():
        if os.access(file.absolute().parent, os.W_OK):
            return [(_GOOD, "ledger", f"{shown}: made by the first call")]
        return [(_BAD, "ledger", f"{shown}: is not there, and its folder cannot be written")]
    try:
        with open_ledger(path, given) as opened:
            kept = len(opened.budgets())
            own = [] if config.budgets or not kept else [(_GOOD, _BUDGETS, f"{kept:,} in the ledger: llm-cost budgets")]
            return [(_GOOD, "ledger", f"{shown}: opens"), *own, *_leases(opened)]
    except (LLMCostError, OSError) as error:
        return [(_BAD, "ledger", str(error))]


def _leases(opened: Ledger) -> list[tuple[str, str, str]]:
    """What of the holds is in blocks of processes: who sees it pending should not look for calls that hang."""
    leased = max(leased_amounts(opened).values(), default=ZERO)
    if not leased:
        return []
    told = f"{currency.exact(leased)} of what is held is in blocks of processes for calls to come: llm-cost help leases"
    return [(_GOOD, "leases", told)]


def _money(config: CostConfig, kept: Sequence[tuple[str, str, str]] = ()) -> list[tuple[str, str, str]]:
    """What is refused and priced. ``kept``: the rows of the ledger, which may have budgets of its own."""
    found = []
    if not config.budgets and all(what != _BUDGETS for _, what, _ in kept):
        found.append((_LOOK, _BUDGETS, "none: everything is booked, nothing is ever refused"))
    kinds = {budget.scope.partition(":")[0] for budget in config.budgets} - {"global", "model", "provider"}
    for kind in sorted(kinds - {*config.attribution.require}):
        told = f'a call that names no {kind} passes them: [attribution] require = ["{kind}"], names = {{{kind} = […]}}'
        found.append((_LOOK, f"budgets by {kind}", told))
    if config.ledger.on_unavailable == "allow":
        found.append((_LOOK, "ledger", 'on_unavailable = "allow": calls leave unreserved while the ledger is down'))
    try:
        catalogue, now = Catalogue(config.prices), SystemClock().now()
        for tier in config.tiers:
            for target in dict.fromkeys(arm.plain for arm in tier.models):
                found += _ending(target, now)
                if config.routing.regions and not is_inside(*target.plain, config.routing.regions):
                    why = why_outside(*target.plain, config.routing.regions)
                    found.append((_BAD, f"tier {tier.name}", f"{target} {why}: it is never called"))
                try:
                    catalogue.rates(target.provider, target.model)
                except PriceNotFoundError as error:
                    found.append((_BAD, f"tier {tier.name}", str(error)))
        found += check_platforms(config, catalogue)
        found += [
            (_LOOK if sibling.cheaper else _GOOD, f"model {sibling.target}", sibling.told)
            for sibling in siblings(config.tiers, todays_tiers(), catalogue)
        ]
    except LLMCostError as error:  # of the whole catalogue: a price of one's own that is wrong, or no genai-prices
        return [*found, (_BAD, "prices", str(error))]
    looked = catalogue.looked_at
    if looked is not None and (age := int((now - looked) // 86_400)) > OLD_DAYS:
        told = (
            f"{catalogue.version}: looked at {age} days ago; llm-cost prices update --network, or a newer genai-prices"
        )
        return [*found, (_LOOK, "prices", told)]
    return [*found, (_GOOD, "prices", catalogue.version)]


def _ending(target: ModelRef, now: float) -> list[tuple[str, str, str]]:
    """That a model is retired, or soon will be."""
    found = find_retirement(*target)
    if found is None or found.days_left(now) > SOON_DAYS:
        return []
    return [(_BAD if found.days_left(now) < 0 else _LOOK, f"model {target}", found.told(now))]


def _keys(config: CostConfig) -> list[tuple[str, str, str]]:
    found = []
    for name, provider in config.providers.items():
        present = bool(os.environ.get(provider.api_key_env))
        finding = f"key in {provider.api_key_env}" if present else f"no key in {provider.api_key_env}: not routed to"
        found.append((_GOOD if present else _LOOK, name, finding))
    return found


def _packages() -> list[tuple[str, str, str]]:
    """Try what each package is for: one that is installed can still fail to import."""
    found, installed = [], {}
    for package, _, _ in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    shut = try_doors(tuple(installed))
    for package, use, extra in _PACKAGES:
        if package not in installed:
            found.append((_LOOK, package, f"not installed: no {use}: pip install '{requirement_of(package, extra)}'"))
        elif shut[package]:
            found.append((_BAD, package, f"{installed[package]}: no {use}: {shut[package]}"))
        else:
            found.append((_GOOD, package, f"{installed[package]}: {use}"))
    return found


def _clients(module: str) -> list[tuple[str, str, str]]:
    """The SDK clients that live once a module of the application was imported, and that nobody wrapped."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as with python -m
    try:
        import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an application does when it is imported
        return [(_BAD, module, f"cannot be imported: {type(error).__name__}: {error}")]
    found = Counter(alive())
    told = [(_LOOK, one.kind, f"{count} of them nobody wrapped; {one.advice}") for one, count in found.items()]
    return told or [(_GOOD, module, "no client of an SDK lives in it that nobody wrapped")]


def _surroundings() -> list[tuple[str, str, str]]:
    found = [
        (
            _LOOK,
            "hidden retries",
            "SDK clients retry twice by themselves; guard, wrap_* and CostAwareRouter switch that off",
        )
    ]
    fetches = os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP", "").lower() != "true"
    if fetches and find_spec("litellm") is not None:
        found.append((_LOOK, "litellm", "importing it fetches prices; LITELLM_LOCAL_MODEL_COST_MAP=True stops that"))
    found.extend(
        (_LOOK, variable, "is set: LangChain's OpenAI models then report no usage in streams unless stream_usage is on")
        for variable in ("OPENAI_BASE_URL", "OPENAI_API_BASE")
        if os.environ.get(variable)
    )
    return found
