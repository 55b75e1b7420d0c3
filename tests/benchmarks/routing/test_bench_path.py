"""From a fresh ledger to a tuned policy: what `tune` tells of 2,000 calls, and what the simulator bills for the next.

The application has fourteen sites of different size and difficulty. It reports how good each answer was; an answer of
the smaller model says the same as the larger one's where it is right. Two commands lead to the policy: `init`, whose
tiers are used as they are written, and `tune`. The saving that is told is a share of the stronger model's bill, and is
compared with the same share on the calls that follow, both from the simulator's own tokens and prices.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.call_ids import call_id_of
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Simulator
from llm_cost_middleware.simulator.bill import cost_nanousd
from llm_cost_middleware.simulator.catalogue import catalogue

pytestmark = pytest.mark.data

HARD = ["prove", "derive", "bound", "integral", "invariant", "deadlock", "recurrence", "theorem", "liability", "tort"]
EASY = ["list", "name", "date", "city", "price", "colour", "phone", "address", "hours", "parcel", "refund", "status"]
FILL = ["please", "could", "you", "for", "the", "our", "this", "with", "about", "and", "in", "a", "new", "next", "last"]
WEAK, STRONG = "gpt-6-luna", "gpt-6.1-terra"
LEARNING = {"explore": 0.2, "shadow": 0.2}


def traffic(seed, n):
    """(site, prompt, is right, output tokens) of calls: the smaller model's rightness depends on site and words."""
    rng, sites = random.Random(seed), random.Random(0)
    kinds = [(f"site-{number}", sites.uniform(0.0, 0.6), sites.randrange(20, 400)) for number in range(14)]
    for number in range(n):
        site, share, size = rng.choices(kinds, range(14, 0, -1))[0]
        hard = rng.random() < share
        words = rng.choices(HARD if hard else EASY, k=4) + rng.choices(FILL, k=8)
        rng.shuffle(words)
        weak, strong = rng.random() < (0.3 if hard else 0.97), rng.random() < 0.97
        yield site, f"{' '.join(words)} {number}", weak, strong, size


def serve(config, seed, n, *, rates):
    """Send calls; returns the bill, the bill had the strong model answered them, and the mean of what was reported."""
    calls = {prompt: (weak, strong, size) for _, prompt, weak, strong, size in traffic(seed, n)}

    def answer(request):
        weak, strong, size = calls[request.turns[-1].text]
        right = strong if STRONG in request.model else weak
        return Answer(text="42" if right else "41" if STRONG in request.model else "40", output_tokens=size)

    openai = pytest.importorskip("openai")
    reported = 0.0
    with (
        Simulator(responder=answer) as sim,
        openai.OpenAI(base_url=sim.openai_url, api_key="k", max_retries=0) as client,
        CostPipeline(config, rng=random.Random(seed)) as pipeline,
    ):
        wrapped = wrap_openai(client, pipeline)
        for site, prompt, weak, strong, _ in traffic(seed, n):
            with cost_context(site=site):
                response = wrapped.chat.completions.create(
                    model="smart", messages=[{"role": "user", "content": prompt}]
                )
            right = strong if STRONG in response.model else weak
            reported += right
            if rates:
                pipeline.feedback(call_id_of(response), float(right))
        lines = sim.bill.lines
        paid = sum(line.cost_nanousd for line in lines)
        at_strong = sum(cost_nanousd(catalogue()[STRONG], line.tokens) for line in lines)
    return paid, at_strong, reported / n


def command(folder, *arguments):
    code = "from llm_cost_middleware.cli import main; main()"
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env, cwd=folder, check=False
    )
    return done.stdout + done.stderr


def configured(folder, **routing):
    text = (folder / "llm-cost.toml").read_text(encoding="utf-8")
    text = re.sub(r'^url = "[^"]*"', f'url = "sqlite:///{folder / "ledger.db"}"', text, count=1, flags=re.MULTILINE)
    for key, value in routing.items():
        text = re.sub(rf"^{key} = [^\s#]+", f"{key} = {json.dumps(value)}", text, count=1, flags=re.MULTILINE)
    (folder / "llm-cost.toml").write_text(text, encoding="utf-8")
    return CostConfig.from_toml(folder / "llm-cost.toml")


def test_from_a_fresh_ledger_to_a_policy_whose_saving_is_the_one_that_was_told(
    tmp_path, monkeypatch, show, keep_figures, soak
):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    n, table, kept = (2_000 if soak else 700), [], {}
    for seed in range(3 if soak else 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        command(folder, "init")
        serve(configured(folder, **LEARNING), 100 + seed, n, rates=True)
        told = command(folder, "tune")
        found = re.search(r"saved against the strong model: ([\d.]+)%", told.replace("\n", " "))
        assert found, told
        accepted = (folder / "llm-cost-policy.json").exists()
        row = {"told": float(found[1]) / 100, "accepted": accepted}
        if accepted:
            policy = {"policy": "learned", "policy_file": str(folder / "llm-cost-policy.json")}
            config = configured(folder, explore=0.0, shadow=0.0, **policy)
            paid, at_strong, quality = serve(config, 200 + seed, n, rates=False)
            best = sum(strong for *_, strong, _ in traffic(200 + seed, n)) / n
            row |= {"saved": 1 - paid / at_strong, "quality_of_strong": quality / best}
        kept[f"seed {seed}"] = row
        table.append((seed, *(f"{value:.1%}" if isinstance(value, float) else value for value in row.values())))
    show(
        f"{n:,} calls, `init`, `tune`, and {n:,} more",
        ("seed", "told", "accepted", "saved", "quality of strong"), table,
    )  # fmt: skip
    keep_figures("path", kept)
    taken = [row for row in kept.values() if row["accepted"]]
    assert taken
    for row in taken:
        assert abs(row["told"] - row["saved"]) <= (0.03 if soak else 0.08)
        assert row["quality_of_strong"] >= 0.95 if soak else 0.93
