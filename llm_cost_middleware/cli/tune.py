"""``llm-cost tune``: learns a routing policy from outcomes, or refuses with a reason."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from llm_cost_middleware.capabilities.arms import parse_arm
from llm_cost_middleware.cli import tables
from llm_cost_middleware.cli.chart import ChartPoint, chart
from llm_cost_middleware.cli.decisions import QualityOption, measured_by, open_log
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, err, load_config, out
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision_log import LoggedCall, QualitySource
from llm_cost_middleware.routing.learned import LearnedPolicy
from llm_cost_middleware.routing.learning.calibration import QualityGuarantee
from llm_cost_middleware.routing.learning.labels import PairedOutcome, labels_from_log, read_labels
from llm_cost_middleware.routing.learning.survey import LogSurvey, survey
from llm_cost_middleware.routing.learning.tuning import PolicyScore, TuningResult
from llm_cost_middleware.routing.learning.tuning import tune as tune_policy


def tune(
    outcomes: Annotated[
        Path | None, typer.Argument(help="JSONL or parquet with both models' outcomes; default: the decision log.")
    ] = None,
    weak: Annotated[
        str | None,
        typer.Option(
            help="provider/model, or an arm of it; default: the log's most used, else the first, of the lowest tier."
        ),
    ] = None,
    strong: Annotated[str | None, typer.Option(help="provider/model; default: the same of the next tier.")] = None,
    quality: Annotated[float, typer.Option(min=0.5, max=1.0, help="The share of the strong model's quality.")] = 0.95,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="How likely the promise is kept.")] = 0.95,
    horizon: Annotated[
        int | None, typer.Option(min=0, help="For how many calls; default: as many as labels; 0: long run.")
    ] = None,
    site_column: Annotated[str, typer.Option(help="The column that names the call site.")] = "site",
    costs: Annotated[tuple[str, str] | None, typer.Option(help="US dollars a call, weak and strong.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The policy file.")] = Path("llm-cost-policy.json"),
    plot: Annotated[Path | None, typer.Option(help="Write the quality-cost curve (SVG).")] = None,
    log: Annotated[Path | None, typer.Option(help="An exported decision log instead of the ledger's.")] = None,
    measure: QualityOption = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Learn a routing policy and write it to a file, or refuse (exit code 1) where the data do not support one."""
    # With data of its own the command needs no configuration, only the default tiers to know which models are meant.
    given = outcomes is not None or log is not None or ledger is not None
    settings = _config_or_default() if given and config is None else load_config(config)
    seen, rated = None, False
    if outcomes is not None:
        pair = _target(weak, settings, 0), _target(strong, settings, 1)
        labels = read_labels(outcomes, *pair, site_column=site_column, costs=costs)
    else:
        with open_log(log, config, ledger) as entries:
            held = survey(entries)
            pair = _target(weak, settings, 0, held.used), _target(strong, settings, 1, held.used)
            labels = _from_log(entries, held, measure, pair)
        rated = (measure or held.source) is QualitySource.FEEDBACK
        seen = dict(zip(("first", "last"), held.span, strict=True)) if held.span else None
    with err.status(f"fitting {len(labels):,} labels"):
        found = tune_policy(
            labels, *pair, current=settings.routing, guarantee=QualityGuarantee(quality, confidence, horizon), log=seen,
            rated=rated,
        )  # fmt: skip
    _show(found)
    if plot is not None and found.calibration is not None:
        plot.write_text(_curve(found), encoding="utf-8")
        err.print(f"wrote {plot}")
    if found.policy is None:
        out.print(f"[bold]refused:[/] {found.reason}", highlight=False)
        raise typer.Exit(1)
    out.print(found.reason, highlight=False)
    _diff(output, found.policy)
    if not dry_run:
        output.write_text(found.policy.dump(), encoding="utf-8")
        out.print(f'wrote {output}. To use it: [routing] policy = "learned", policy_file = "{output}"', markup=False)


def _config_or_default() -> CostConfig:
    try:
        return load_config(None)
    except ConfigurationError:
        return CostConfig()


def _target(
    name: str | None, settings: CostConfig, tier: int, used: Mapping[int, Counter[ModelRef]] = MappingProxyType({})
) -> ModelRef:
    if name is None:
        if found := used.get(tier):
            return found.most_common(1)[0][0]
        if tier >= len(settings.tiers):
            raise ConfigurationError("there is only one tier: name both models", key="--strong")
        return settings.tiers[tier].models[0]
    return parse_arm(name, "--strong" if tier else "--weak")


def _from_log(
    entries: Iterable[LoggedCall], held: LogSurvey, measure: QualitySource | None, pair: tuple[ModelRef, ModelRef]
) -> list[PairedOutcome]:
    source = measure or held.source
    err.print(f"weak {pair[0]}, strong {pair[1]}; others by --weak and --strong", highlight=False)
    err.print(measured_by(source, held), highlight=False)
    if source is QualitySource.FAILURES and measure is None:
        out.print(
            f"[bold]refused:[/] {_NO_GRADES.format('too little' if held.rated else 'nothing', held.answered)}",
            highlight=False,
        )
        raise typer.Exit(1)
    found = labels_from_log(entries, *pair, source)
    if "another model" in found.left_out:
        others = sorted({f"{target} ({calls:,})" for seen in held.used.values() for target, calls in seen.items()})
        err.print(f"the log holds {', '.join(others)}", highlight=False)
    for reason, calls in found.left_out.items():
        err.print(f"left out {calls:,} calls: {reason}", highlight=False)
    return found.labels


_NO_GRADES = (
    "{} is known of how good these {:,} calls were. That no failure was seen is no grade. Report it with "
    "pipeline.feedback(call_id_of(response), score), or learn to avoid visible failures alone with --measure failures"
)


def _show(found: TuningResult) -> None:
    calibration = found.calibration
    if calibration is None:
        return
    columns = [*tables.figures("strong share", "quality", "of strong", "saved"), *tables.names("safe", "")]
    rows = []
    step = max(1, len(calibration.curve) // 12)  # about a dozen rows; the chosen point is always one of them
    for number, point in enumerate(calibration.curve):
        if point is calibration.chosen or number % step == 0:
            rows.append([
                f"{point.strong_share:.0%}", f"{point.quality:.4f}",
                f"{point.quality / calibration.strong_quality:.1%}" if calibration.strong_quality else "-",
                f"{1 - point.spend:.0%}", "yes" if point.margin >= 0 else "no",
                "chosen" if point is calibration.chosen else "",
            ])  # fmt: skip
    tables.show(columns, rows, title=f"quality and cost on {found.labels:,} labels of {found.sites} sites, out of fold")
    for name, score in (("configured", found.current), ("tuned", found.tuned)):
        if score is not None:
            out.print(f"{name}: {_score_text(score)}", highlight=False)
    if found.saving is not None:
        out.print("saved against the strong model: {:.1%} ({:.1%} to {:.1%})".format(*found.saving), highlight=False)


def _score_text(at: PolicyScore) -> str:
    return f"{at.quality:.1%} of the strong model's quality (at least {at.quality_low:.1%}), {at.spend:.1%} of its cost"


def _curve(found: TuningResult) -> str:
    calibration = found.calibration
    if calibration is None:
        return ""
    line = [(point.spend, point.quality) for point in calibration.curve]
    points = [
        ChartPoint(calibration.weak_spend, calibration.weak_quality, "weak", hollow=True),
        ChartPoint(1.0, calibration.strong_quality, "strong", hollow=True),
        ChartPoint(calibration.chosen.spend, calibration.chosen.quality, "chosen"),
    ]
    return chart("quality and cost, out of fold", "cost, of always strong", "quality", line, points)


def _diff(path: Path, policy: LearnedPolicy) -> None:
    """Print the changes of the policy file, without the n-gram weights."""
    before = _reviewed(path.read_text(encoding="utf-8")) if path.exists() else []
    after = _reviewed(policy.dump())
    for line in difflib.unified_diff(before, after, str(path), f"{path} (new)", lineterm="", n=1):
        out.print(line, highlight=False, markup=False)


def _reviewed(text: str) -> list[str]:
    try:
        document = json.loads(text)
    except ValueError:
        return text.splitlines()
    document.pop("grams", None)  # thousands of weights, which nobody reviews
    return json.dumps(document, indent=1, ensure_ascii=False).splitlines()
