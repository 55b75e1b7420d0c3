"""Thirteen pairs of models with known outcomes, and the field's own measures.

The pairs were fixed before any of them was measured: the published pair of RouteLLM on its three benchmarks, and on the
others a small and a large model that one would really hesitate between, mostly siblings of one vendor.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


class Pair(NamedTuple):
    """Outcomes of a weak and a strong model on one benchmark. ``costs``: US dollars a call where the data say none."""

    name: str
    file: str
    weak: str
    strong: str
    costs: tuple[float, float] | None = None


PAPER = (0.24e-3, 24.7e-3)  # RouteLLM, appendix D: $0.24 against $24.7 a million tokens
PAIRS = (
    Pair("mmlu", "routellm_mmlu", "mixtral-8x7b", "gpt-4-1106-preview", PAPER),
    Pair("gsm8k", "routellm_gsm8k", "mixtral-8x7b", "gpt-4-1106-preview"),
    Pair("mtbench", "routellm_mtbench", "mixtral-8x7b", "gpt-4-1106-preview", PAPER),
    Pair("mmlu-pro", "mmlu_pro", "gemini-1.5-flash-002", "gemini-1.5-pro-002"),
    Pair("mmlu-pro llama", "mmlu_pro", "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct"),
    Pair("mix", "llmrouter_mix", "qwen2.5-7b-instruct", "llama-3.1-nemotron-51b-instruct", (0.2e-3, 0.9e-3)),
    Pair("mix llama", "llmrouter_mix", "llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct", (0.2e-3, 0.9e-3)),
    Pair("gsm gpt", "zeroeval_gsm", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"),
    Pair("gsm claude", "zeroeval_gsm", "claude-3-haiku-20240307", "claude-3-5-sonnet-20241022"),
    Pair("gsm llama", "zeroeval_gsm", "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct"),
    Pair("math gpt", "zeroeval_math_l5", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"),
    Pair("math claude", "zeroeval_math_l5", "claude-3-haiku-20240307", "claude-3-5-sonnet-20241022"),
    Pair("math llama", "zeroeval_math_l5", "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct"),
)


class Outcomes:
    """One pair's outcomes as arrays, with labels that carry the task as the call site or nothing."""

    def __init__(self, pair, frame, counted):
        from llm_cost_middleware.routing.learning.labels import PairedOutcome

        self.pair = pair
        both = frame[f"score__{pair.weak}"].notna() & frame[f"score__{pair.strong}"].notna()
        kept = frame[both]
        self.prompts = kept["prompt"].tolist()
        self.tasks = kept["task"].astype(str).tolist()
        self.weak = kept[f"score__{pair.weak}"].to_numpy(float)
        self.strong = kept[f"score__{pair.strong}"].to_numpy(float)
        if pair.costs is None:
            self.weak_cost = kept[f"cost__{pair.weak}"].to_numpy(float)
            self.strong_cost = kept[f"cost__{pair.strong}"].to_numpy(float)
        else:
            self.weak_cost, self.strong_cost = self.weak * 0 + pair.costs[0], self.weak * 0 + pair.costs[1]
        read = [entry for entry, used in zip(counted, both, strict=True) if used]
        self._facts = list(
            zip(read, self.weak, self.strong, self.weak_cost, self.strong_cost, self.prompts, self.tasks, strict=True)
        )
        self._label = PairedOutcome

    def __len__(self):
        return len(self.prompts)

    def labels(self, *, sites, rows=None):
        facts = self._facts if rows is None else [self._facts[row] for row in rows]
        return [
            self._label(
                grams, shape, task if sites else "*", float(w), float(s), round(cw * 1e9), round(cs * 1e9), len(text)
            )
            for (grams, shape), w, s, cw, cs, text, task in facts
        ]


@pytest.fixture(scope="session")
def outcomes(data_folder):
    """Load a pair by name; files are read and texts are hashed once."""
    pandas = pytest.importorskip("pandas")
    from llm_cost_middleware.routing.complexity import head_and_tail, ngram_hashes, text_stats

    @cache
    def frame(name):
        table = pandas.read_parquet(data_folder / "routing" / f"{name}.parquet")
        texts = [head_and_tail(text) for text in table["prompt"]]
        return table, [(ngram_hashes(text), text_stats(text)) for text in texts]

    @cache
    def load(name):
        pair = next(pair for pair in PAIRS if pair.name == name)
        return Outcomes(pair, *frame(pair.file))

    return load


@pytest.fixture(scope="session")
def out_of_fold(outcomes):
    """Scores of a pair, 5-fold out of fold: by name, with the task as the call site or from the prompt alone."""

    @cache
    def scores(name, *, sites, seed=0):
        from llm_cost_middleware.routing.learning.fitting import cross_scores, design_of

        return cross_scores(design_of(outcomes(name).labels(sites=sites)), folds=5, seed=seed)

    return scores


@pytest.fixture(scope="session")
def pair_names():
    return [pair.name for pair in PAIRS]


@pytest.fixture(scope="session")
def measures(data_folder):
    """The routing measures that the figures are compared by; they lie beside the data."""
    path = data_folder.parent / "tools" / "routemetrics.py"
    if not path.is_file():
        pytest.skip(f"the measures are absent: {path.name} is expected in tools/ beside the data")
    spec = importlib.util.spec_from_file_location("routemetrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def keep_figures(request):
    """Check the figures of a full run into the tree, under tests/benchmarks/results."""

    def keep(name, figures):
        if request.config.getoption("--soak"):
            path = Path(__file__).resolve().parent.parent / "results" / f"routing_{name}.json"
            path.parent.mkdir(exist_ok=True)
            text = json.dumps(_rounded(figures), indent=1)
            lists_in_one_line = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text)
            path.write_text(lists_in_one_line + "\n", encoding="utf-8")

    return keep


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@pytest.fixture(scope="session")
def litellm_score():
    """LiteLLM's own offline complexity router, from the installed package: text → score."""
    litellm = pytest.importorskip("litellm")
    from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

    router = ComplexityRouter("smart", litellm.Router(model_list=[]))
    return lambda text: router.classify(text)[1]


@pytest.fixture
def show(capsys):
    """Print a table past pytest's capture."""

    def put(title, header, rows):
        cells = [[str(cell) for cell in row] for row in (header, *rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        with capsys.disabled():
            print(f"\n\n{title}")
            for row in cells:
                first, *rest = zip(row, widths, strict=True)
                print("  " + first[0].ljust(first[1]) + "".join(f"  {cell:>{width}}" for cell, width in rest))

    return put
