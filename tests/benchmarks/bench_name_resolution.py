"""What it costs a call to learn which deployments its name reaches, on a LiteLLM router of 200 deployments.

Run it with LiteLLM installed; nothing is sent::

    python tests/benchmarks/bench_name_resolution.py

Printed are microseconds of one resolution: the least of twenty rounds, as other load of a machine only adds. Beside it,
what LiteLLM's own pick of a deployment takes. The answer is remembered until the router's lists change: each way of
changing them is tried, and must be seen by the next call.
"""

from __future__ import annotations

import os
import sys
import timeit
import warnings
from collections.abc import Callable
from functools import partial

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
warnings.simplefilter("ignore")

DEPLOYMENTS = 200
ROUNDS, CALLS = 20, 500
LAYOUTS = (1, 10, 50, 200)
"""Deployments in a group."""
BOUND_US = 10.0


def deployment(group: str, model: str = "openai/gpt-5-mini", **params: object) -> dict[str, object]:
    """An entry of a ``model_list``."""
    return {"model_name": group, "litellm_params": {"model": model, "api_key": "k", "api_base": "http://x", **params}}


def least_us(work: Callable[[], object], calls: int = CALLS) -> float:
    """Microseconds of one call, in the quickest round."""
    return min(timeit.repeat(work, number=calls, repeat=ROUNDS)) / calls * 1e6


def changes_are_seen() -> None:
    """Raise unless the next call sees every change of a router's lists."""
    import litellm

    from llm_cost_middleware.integrations.litellm.groups import Groups
    from llm_cost_middleware.pricing.catalogue import Catalogue

    router = litellm.Router([deployment("m"), deployment("other")], num_retries=0)
    groups = Groups(router, Catalogue())

    def model_of(name: str) -> str:
        group = groups.find(name, {})
        assert group is not None
        return group.target.model

    assert model_of("m") == "gpt-5-mini"
    router.model_list.append(deployment("new", "openai/gpt-5.1"))
    assert model_of("new") == "gpt-5.1"
    router.model_list[0]["litellm_params"]["model"] = "openai/gpt-5-nano"
    assert model_of("m") == "gpt-5-nano"
    router.set_model_list([deployment("m", "openai/gpt-5.1"), deployment("other")])
    assert model_of("m") == "gpt-5.1"
    changed = litellm.Deployment(
        model_name="other",
        litellm_params=litellm.LiteLLM_Params(model="openai/gpt-5-nano", api_key="k"),
        model_info={"id": router.get_model_ids(model_name="other")[0]},
    )
    router.upsert_deployment(changed)
    assert model_of("other") == "gpt-5-nano"
    router.delete_deployment(router.get_model_ids(model_name="m")[0])
    try:
        model_of("m")
    except litellm.BadRequestError:
        pass
    else:
        raise AssertionError("a deployment that is gone is still found")


def main() -> int:
    """Print the figures; the exit code says whether all stay within the bound."""
    import litellm

    from llm_cost_middleware.integrations.litellm.groups import Groups
    from llm_cost_middleware.pricing.catalogue import Catalogue

    changes_are_seen()
    worst = 0.0
    print(f"litellm router of {DEPLOYMENTS} deployments, us a call")
    print(f"{'in a group':>10} {'group':>8} {'alias':>8} {'id':>8} {'routed':>8} {'own pick':>9}")
    for size in LAYOUTS:
        entries = [deployment(f"m{index // size}", metadata=index) for index in range(DEPLOYMENTS)]
        router = litellm.Router(entries, num_retries=0, model_group_alias={"short": "m0"})
        groups = Groups(router, Catalogue())
        identity = router.get_model_ids(model_name="m0")[0]
        request = {"metadata": {}}
        found = [least_us(partial(groups.find, name, request)) for name in ("m0", "short", identity)]
        found.append(least_us(groups.refresh))
        pick = least_us(partial(router.get_available_deployment, "m0"), calls=5)
        print(f"{size:>10}", *(f"{figure:>8.2f}" for figure in found), f"{pick:>9.1f}")
        worst = max(worst, *found)
    print(f"the dearest: {worst:.2f} us; the bound is {BOUND_US:.0f}")
    return 0 if worst <= BOUND_US else 1


if __name__ == "__main__":
    sys.exit(main())
