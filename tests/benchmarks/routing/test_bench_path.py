"""From a fresh ledger to a tuned policy: what `tune` tells of 2,000 calls, and what the simulator bills for the next.

The application has fourteen sites of different size and difficulty. It reports how good each answer was; an answer of
the smaller model says the same as the larger one's where it is right. Two commands lead to the policy: `init`, whose
tiers are used as they are written, and `tune`. The saving that is told is a share of the stronger model's bill, and is
compared with the same share on the calls that follow, both from the simulator's own tokens and prices.

The same path is walked with two arms of one model, of which the second thinks more: by the simulator's stated model of
effort that is 64 tokens of reasoning against 256. Beside it stand the bills of either effort for every call.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.call_ids import call_id_of
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Simulator
from llm_cost_middleware.simulator.bill import cost_nanousd
from llm_cost_middleware.simulator.catalogue import catalogue
from llm_cost_middleware.simulator.openai.checks import EFFORT_TOKENS

pytestmark = pytest.mark.data

HARD = ["prove", "derive", "bound", "integral", "invariant", "deadlock", "recurrence", "theorem", "liability", "tort"]
EASY = ["list", "name", "date", "city", "price", "colour", "phone", "address", "hours", "parcel", "refund", "status"]
FILL = ["please", "could", "you", "for", "the", "our", "this", "with", "about", "and", "in", "a", "new", "next", "last"]
WEAK, STRONG, ONE = "gpt-6-luna", "gpt-6.1-terra", "gpt-5.1"
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


class Models:
    """Two models: which one a request asks, how long answers are, and what a billed one costs at the stronger."""

    def is_strong(self, body):
        return STRONG in body["model"]

    def answer(self, said, size):
        return Answer(text=said, output_tokens=size)

    def at_strong(self, line):
        return cost_nanousd(catalogue()[STRONG], line.tokens)


class Efforts(Models):
    """Two efforts of one model; the tokens of reasoning come on top of an answer."""

    def is_strong(self, body):
        return body["reasoning_effort"] == "high"

    def answer(self, said, size):
        return Answer(text=" ".join([said] * (size // 8)))

    def __init__(self):
        self.at_low = 0

    def at_strong(self, line):
        self.at_low += self.at("low", line)
        return self.at("high", line)

    def at(self, effort, line):
        tokens, thought = line.tokens, EFFORT_TOKENS[effort]
        written = tokens.output - tokens.reasoning
        return cost_nanousd(catalogue()[ONE], replace(tokens, output=written + thought, reasoning=thought))


def serve(config, seed, n, *, rates, pair=Models()):  # noqa: B008 - immutable
    """Send calls; returns the bill, the bill had the stronger one answered them, and the mean of what was reported."""
    calls = {prompt: (weak, strong, size) for _, prompt, weak, strong, size in traffic(seed, n)}

    def answer(request):
        weak, strong, size = calls[request.turns[-1].text]
        is_strong = pair.is_strong(request.body)
        right = strong if is_strong else weak
        return pair.answer("42" if right else "41" if is_strong else "40", size)

    openai = pytest.importorskip("openai")
    reported = 0.0
    with (
        Simulator(responder=answer) as sim,
        openai.OpenAI(base_url=sim.openai_url, api_key="k", max_retries=0) as client,
        CostPipeline(config, rng=random.Random(seed)) as pipeline,
    ):
        wrapped = wrap_openai(client, pipeline)
        for site, prompt, *_ in traffic(seed, n):
            with cost_context(site=site):
                response = wrapped.chat.completions.create(
                    model="smart", messages=[{"role": "user", "content": prompt}]
                )
            right = response.choices[0].message.content.startswith("42")
            reported += right
            if rates:
                pipeline.feedback(call_id_of(response), float(right))
        lines = sim.bill.lines
        paid = sum(line.cost_nanousd for line in lines)
        at_strong = sum(pair.at_strong(line) for line in lines)
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


ARMS = """
[ledger]
url = "sqlite:///{folder}/ledger.db"
[[tiers]]
name = "quick"
models = [{{model = "openai/{one}", reasoning_effort = "low"}}]
[[tiers]]
name = "thorough"
models = [{{model = "openai/{one}", reasoning_effort = "high"}}]
[routing]
{routing}
"""


def with_arms(folder, **routing):
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in routing.items())
    (folder / "llm-cost.toml").write_text(ARMS.format(folder=folder, one=ONE, routing=lines), encoding="utf-8")
    return CostConfig.from_toml(folder / "llm-cost.toml")


def test_the_same_path_with_two_efforts_of_one_model(tmp_path, monkeypatch, show, keep_figures, soak):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    n, table, kept = (2_000 if soak else 500), [], {}
    for seed in range(3 if soak else 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        serve(with_arms(folder, policy="threshold", **LEARNING), 100 + seed, n, rates=True, pair=Efforts())
        told = command(folder, "tune")
        found = re.search(r"saved against the strong model: ([\d.]+)%", told.replace("\n", " "))
        assert found, told
        replayed = command(folder, "replay", "--policy", "llm-cost.toml")
        assert "saved" in replayed, replayed
        assert f"openai/{ONE}+reasoning_effort=" in command(folder, "decisions")
        policy = {"policy": "learned", "policy_file": str(folder / "llm-cost-policy.json")}
        pair = Efforts()
        paid, at_strong, quality = serve(with_arms(folder, **policy), 200 + seed, n, rates=False, pair=pair)
        right = [(weak, strong) for _, _, weak, strong, _ in traffic(200 + seed, n)]
        low, high = (sum(each) / n for each in zip(*right, strict=True))
        kept[f"seed {seed}"] = row = {
            "told": float(found[1]) / 100, "saved": 1 - paid / at_strong, "quality_of_high": quality / high,
            "saved_by_low_alone": 1 - pair.at_low / at_strong, "quality_of_low_alone": low / high,
        }  # fmt: skip
        table.append((seed, *(f"{value:.1%}" for value in row.values())))
        assert abs(row["told"] - row["saved"]) <= (0.03 if soak else 0.08)
        assert row["quality_of_high"] >= (0.95 if soak else 0.93) > row["quality_of_low_alone"]
        assert 0 < row["saved"] < row["saved_by_low_alone"]
    show(
        f"{n:,} calls of {ONE} at low and high effort, `tune`, and {n:,} more",
        ("seed", "told", "saved", "quality of high", "saved by low alone", "quality of low alone"), table,
    )  # fmt: skip
    keep_figures("arms", kept)
