"""The full run of the retry simulation: a few minutes on one core.

``PYTHONPATH=. python tests/benchmarks/bench_retry_storms.py`` prints the table and writes
``results/retry_storms.json``: medians over three seeds that no parameter was chosen on, and the course of the first.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from dataclasses import asdict, fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "retry_storms.json"
SEEDS = (100, 101, 102)
STEP_S = 5


def load_simulation():
    """The simulation beside this file; test folders are not packages."""
    if "retry_storm" not in sys.modules:
        spec = importlib.util.spec_from_file_location("retry_storm", HERE / "retry_storm.py")
        sys.modules["retry_storm"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["retry_storm"]


def course(series: list[float]) -> list[float]:
    return [round(statistics.fmean(series[at : at + STEP_S]), 3) for at in range(0, len(series), STEP_S)]


def measure(storm, policy: str, scenario, seeds=SEEDS) -> dict:
    runs = [storm.simulate(policy, scenario, seed) for seed in seeds]
    row: dict = {}
    for field in fields(storm.Outcome):
        values = [getattr(run, field.name) for run in runs]
        if isinstance(values[0], list):
            row[field.name] = course(values[0])
        elif None in values:
            row[field.name] = None
        else:
            row[field.name] = round(statistics.median(values), 4)
    row["wasted"] = round(statistics.median(run.wasted for run in runs), 4)
    return row


def line(scenario: str, policy: str, row: dict) -> str:
    recovery = "never" if row["recovery_s"] is None else f"{row['recovery_s']:.0f} s"
    return (
        f"{scenario:25} {policy:23} {row['load']:5.2f} {row['load_in_fault']:6.2f} {row['success_in_fault']:8.1%}"
        f" {row['success']:7.1%} {row['peak_after']:6.2f} {row['wasted_usd']:7.0f} {row['wasted']:6.1%} {recovery:>7}"
        f" {row['passed_after_probe']:7.2%}"
    )


HEAD = (
    f"{'scenario':25} {'policy':23} {'load':>5} {'fault':>6} {'ok fault':>8} {'ok':>7} {'peak':>6} {'waste $':>7}"
    f" {'share':>6} {'recov.':>7} {'passed':>7}"
)


def main() -> None:
    storm = load_simulation()
    table: dict = {"seeds": SEEDS, "step_s": STEP_S, "scenarios": {}, "runs": {}}
    print(HEAD)
    ours = [policy for policy in storm.POLICIES if policy.startswith("ours")]
    groups = (
        (storm.SCENARIOS, list(storm.POLICIES), SEEDS),
        (storm.OTHER_TRAFFIC, ["SDK default", *ours], SEEDS),
        (storm.OTHER_CAPACITIES, ours, SEEDS[:1]),
    )
    for scenarios, policies, seeds in groups:
        for name, scenario in scenarios.items():
            table["scenarios"][name] = asdict(scenario)
            for policy in policies:
                row = measure(storm, policy, scenario, seeds)
                if scenarios is not storm.SCENARIOS:
                    del row["requests"], row["goodput"]
                table["runs"].setdefault(name, {})[policy] = row
                print(line(name, policy, row), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    rows = json.dumps(table, indent=None, separators=(",", ":")).replace('"runs":', '\n"runs":').replace('},"', '},\n"')
    RESULTS.write_text(rows + "\n")


if __name__ == "__main__":
    main()
