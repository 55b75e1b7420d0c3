"""``llm-cost estimate``: cost of a file of requests before any of them is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, err, open_ledger, out
from llm_cost_middleware.cli.prices import behind, open_catalogue
from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError
from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.money import NanoUSD, ceil_nanousd
from llm_cost_middleware.pricing.bound import Bound, bound, measure
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.tokenizer import count_tokens
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers import get_provider, provider_of, provider_of_endpoint
from llm_cost_middleware.request import CallRequest, Endpoint
from llm_cost_middleware.routing.decision_log import DecisionLog
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.system_clock import SystemClock
from llm_cost_middleware.usage import TokenUsage

_ROUTED = ". A name that is routed, such as smart, has none: name the model to estimate"
_WEEK_S = 7 * 86_400.0
_BYTES_PER_TOKEN = 3
"""Usual bytes per token without a tokenizer: prose has more, JSON and code fewer."""


@dataclass(slots=True)
class _Sum:
    """Totals of the requests for one model."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    bound: int = 0
    expected: int = 0
    unsure: int = 0
    notes: dict[str, None] = field(default_factory=dict)


class _RequestLine(NamedTuple):
    number: int
    provider: str
    request: CallRequest


def estimate(
    file: Annotated[Path, typer.Argument(help="One request a line: a body, or a line of a batch file. - reads stdin.")],
    config: ConfigOption = None,
    answer: Annotated[int, typer.Option(min=0, help="How long an answer is expected to be, in tokens.")] = 500,
    allowance: Annotated[str, typer.Option(help="US dollars to allow for each use of a server tool.")] = "0.05",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Output cap of the requests that name none.")] = None,
    site: Annotated[
        str | None, typer.Option(help="A call site: expect answers as long as the ledger's log has them there.")
    ] = None,
    ledger: LedgerOption = None,
    *,
    batch: Annotated[bool, typer.Option("--batch", help="They will be sent as a batch.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what the requests of a file would cost: at most, and by an answer of the expected length."""
    catalogue, now = open_catalogue(config), SystemClock().now()
    if site is not None:
        answer = _usual_answer(config, ledger, site, now)
    per_use = ceil_nanousd(allowance, what="--allowance")
    sums: dict[str, _Sum] = {}
    unpriced: dict[str, list[int]] = {}
    for line in _requests(file, config):
        if line.request.max_tokens is None:
            line = line._replace(request=line.request._replace(max_tokens=max_tokens))  # noqa: PLW2901 - the same line
        model = f"{line.provider}/{line.request.model}"
        params = {**line.request.params, "batch": batch}
        try:
            most = _most(catalogue, line, params, now, per_use)
            expected = _expected(catalogue, line, most, now, answer, batch=batch)
        except PriceNotFoundError:
            # Not an error yet: the other requests are still worth an estimate. The exit code is 1 in the end.
            unpriced.setdefault(model, []).append(line.number)
            continue
        _add(sums.setdefault(model, _Sum()), most, expected)
    if as_json:
        out.print_json(json.dumps(_as_data(sums, unpriced, catalogue)))
    else:
        _show(sums, catalogue, answer)
    for model, lines in unpriced.items():
        named = f"no price for {model}, which {len(lines)} request(s) name, first in line {lines[0]}"
        routed = "" if "/" not in model or provider_of(model.partition("/")[2]) else _ROUTED
        err.print(named + routed, highlight=False)
    if unpriced:
        raise typer.Exit(1)


def _usual_answer(config: Path | None, url: str | None, site: str, now: float) -> int:
    """The mean length of the answers that were logged at a call site in the last week, in tokens."""
    history = SiteHistory()
    with open_ledger(config, url) as ledger:
        for logged in DecisionLog(ledger.journal).read(now - _WEEK_S):
            if logged.decision.site == site and (end := logged.settlement) and end.output_tokens is not None:
                history.observe(site, end.target, end.output_tokens)
    mean = history.outputs(site).get(None)
    if mean is None:
        raise ConfigurationError(f"no answers of {site!r} were logged in the last week", key="--site")
    return round(mean.value)


def _requests(file: Path, config: Path | None) -> Iterator[_RequestLine]:
    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from None
    for number, raw in enumerate(text.splitlines(), 1):
        if not raw.strip():
            continue
        try:
            data = json.loads(raw)
        except ValueError as error:
            raise ConfigurationError(f"{file}, line {number} is not JSON: {error}") from None
        # OpenAI's batch files hold the request under "body", Anthropic's under "params".
        body = data.get("body") or data.get("params") or data if isinstance(data, Mapping) else None
        if not isinstance(body, Mapping) or not isinstance(body.get("model"), str):
            raise ConfigurationError(f"{file}, line {number} is not a request: it names no model")
        yield _RequestLine(number, *_read(body, behind(body["model"], config), str(data.get("url") or "")))


def _read(body: Mapping[str, Any], name: str, url: str) -> tuple[str, CallRequest]:
    """``name``: what the model of the body stands for. ``url``: where a line of a batch file is to be sent."""
    named, slash, bare = name.partition("/")
    model = bare if slash else named
    known = named if slash else provider_of(model.removeprefix("ft:"))
    # most servers of unknown models speak this form
    rules = get_provider(known) if known else provider_of_endpoint("chat.completions")
    return rules.name, rules.read_request({**body, "model": model}, _endpoint(rules, model, body, url))


def _endpoint(rules: Provider, model: str, body: Mapping[str, Any], url: str) -> Endpoint:
    named = [one for one in rules.endpoints if url.endswith("/" + one.replace(".", "/"))]
    if named:
        return named[0]
    if "embeddings" in rules.endpoints and find_limits(rules.name, model).max_output == 0:
        return "embeddings"
    return "responses" if "input" in body and "responses" in rules.endpoints else rules.endpoints[0]


def _most(catalogue: Catalogue, line: _RequestLine, params: Mapping[str, Any], now: float, per_use: NanoUSD) -> Bound:
    request = line.request
    limits = catalogue.limits(line.provider, request.model)
    rates = catalogue.upper_bound_rates(line.provider, request.model, at=now, params=params)
    rules = get_provider(line.provider)
    return bound(
        request, rules, rates, max_tokens=request.max_tokens, limits=limits, server_tool_allowance=per_use,
        cache_writes=False,  # a file is estimated as it is: no plan will add marks
    )  # fmt: skip


def _expected(
    catalogue: Catalogue, line: _RequestLine, most: Bound, now: float, answer: int, *, batch: bool
) -> NanoUSD:
    request = line.request
    size = measure(request)
    limits = catalogue.limits(line.provider, request.model)
    counted = count_tokens(request, limits.encoding)
    likely = counted if counted is not None else (size.text_bytes + size.tool_bytes) // _BYTES_PER_TOKEN
    # Never above the bound, or an estimate could exceed the most that the request can cost.
    likely = min(likely + len(size.images) * (limits.image_tokens or 0), most.input_tokens)
    usage = TokenUsage(uncached_input=likely, output=min(answer, most.max_tokens) * request.choice_count)
    tier = request.params.get("service_tier")
    rates = catalogue.rates(line.provider, request.model, at=now, service_tier=tier, batch=batch)
    return min(rates.cost(usage), most.amount_nanousd)


def _add(total: _Sum, most: Bound, expected: NanoUSD) -> None:
    total.requests += 1
    total.input_tokens += most.input_tokens
    total.output_tokens += most.max_tokens
    total.bound += most.amount_nanousd
    total.expected += expected
    total.unsure += not most.guaranteed
    total.notes.update(dict.fromkeys(most.notes))


def _as_data(sums: Mapping[str, _Sum], unpriced: Mapping[str, list[int]], catalogue: Catalogue) -> dict[str, Any]:
    models = {
        model: {
            "requests": total.requests,
            "input_tokens_at_most": total.input_tokens,
            "output_tokens_at_most": total.output_tokens,
            "expected_usd": f"{NanoUSD(total.expected).usd:f}",
            "at_most_usd": f"{NanoUSD(total.bound).usd:f}",
            "not_guaranteed": total.unsure,
            "notes": list(total.notes),
        }
        for model, total in sums.items()
    }
    at_most, expected = (sum(getattr(total, name) for total in sums.values()) for name in ("bound", "expected"))
    return {
        "prices": catalogue.version,
        "at_most_usd": f"{NanoUSD(at_most).usd:f}",
        "expected_usd": f"{NanoUSD(expected).usd:f}",
        "models": models,
        "without_a_price": {model: len(lines) for model, lines in unpriced.items()},
    }


def _show(sums: Mapping[str, _Sum], catalogue: Catalogue, answer: int) -> None:
    columns = [
        tables.Column("model"),
        *tables.figures("requests", "input\nat most", "output\nat most", "expected", "at most"),
    ]
    whole, rows = _Sum(), []
    for model, total in sorted(sums.items()):
        rows.append([model + ("*" if total.unsure else ""), *_cells(total)])
        for name in ("requests", "input_tokens", "output_tokens", "bound", "expected", "unsure"):
            setattr(whole, name, getattr(whole, name) + getattr(total, name))
        whole.notes.update(total.notes)
    title = f"what these requests would cost, {currency.unit()} (answers of {answer:,} tokens expected)"
    tables.show(columns, rows, title=title, total=["all", *_cells(whole)] if len(sums) != 1 else None)
    if whole.unsure:
        tables.say(f"* {whole.unsure} request(s) can cost more than that:")
    for note in whole.notes:
        tables.say(f"  {note}")
    tables.say(catalogue.version)


def _cells(total: _Sum) -> tuple[str, ...]:
    counts = tuple(f"{count:,}" for count in (total.requests, total.input_tokens, total.output_tokens))
    return (*counts, *(currency.amount(NanoUSD(amount)) for amount in (total.expected, total.bound)))
