"""The product of parameters and targets, and what became of its calls."""

from __future__ import annotations

from collections import Counter

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator.catalogue import catalogue

TARGETS = sorted({(model.provider, model.id) for model in catalogue().values() if model.max_output})
"""Every model that chats."""
SHARE = 5
"""One in so many pairs is tried in the short form; all of them with ``--soak``."""


def pipeline_to(target, provider):
    return CostPipeline(
        CostConfig(
            tiers=[{"name": "one", "models": ["/".join(target)]}],
            retry={"max_attempts": 1, "fallback": False, "breaker": False},
            providers={"anthropic": {"base_url": provider.anthropic_url}, "openai": {"base_url": provider.openai_url}},
        )
    )


def product(names, targets, soak):
    """The pairs of a value and a target that are tried."""
    values = [(name, value) for name in sorted(names) for value in names[name]]
    for row, (name, value) in enumerate(values):
        for column, target in enumerate(targets):
            if soak or (row + column) % SHARE == 0:
                yield name, value, target


def drain(answer):
    if hasattr(answer, "__iter__") and not hasattr(answer, "model_dump"):
        list(answer)


class Outcomes(Counter):
    """What became of the calls of one host.

    Args:
        refusals: What the host's refusals are, where they come as an answer of a server.
    """

    wrong: list

    def __init__(self, refusals=()):
        super().__init__()
        self.wrong, self.refusals = [], (LLMCostError, *refusals)

    def note(self, what, call, provider, *, plain=None):
        before = provider.request_count
        try:
            drain(call())
        except self.refusals as refusal:
            if provider.request_count == before and str(refusal):
                self["refused before sending"] += 1
            else:
                self.wrong.append(f"{what}: refused after it was sent: {refusal}"[:300])
        except Exception as error:  # noqa: BLE001 - of three SDKs and two hosts
            if plain is not None and not answers(plain):
                self["refused as the plain call is"] += 1
            else:
                self.wrong.append(f"{what}: {type(error).__name__} {error}"[:300])
        else:
            self["answered"] += 1

    def check(self, host):
        print(f"\n{host}: {sum(self.values()) + len(self.wrong)} calls: {dict(self)}, wrong {len(self.wrong)}")
        assert not self.wrong, "\n".join([f"{len(self.wrong)} calls were made invalid", *self.wrong[:20]])
        assert self["answered"] > sum(self.values()) // 3


def answers(plain):
    try:
        drain(plain())
    except Exception:  # noqa: BLE001 - whatever it is, the plain call meets it, too
        return False
    return True
