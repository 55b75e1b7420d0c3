"""A process that spends past a threshold, with alerts to a webhook; run by tests of several processes."""

from __future__ import annotations

import sys

from llm_cost_middleware import CostPipeline

LOOK_S = 0.3


def main(ledger, webhook):
    from llm_cost_middleware.alerts import record, service

    service.LOOK_S, record.CLAIM_S = LOOK_S, 1.0
    config = {
        "ledger": {"url": ledger}, "alerts": [{"when": "threshold", "to": [webhook]}],
        "budgets": [{"scope": "team:*", "limit": 1, "window": "month"}],
    }  # fmt: skip
    with CostPipeline(config) as pipeline:
        pipeline.ledger.book("0.3", ["team:a", "team:b"])  # the third of four processes crosses
        print("ready", flush=True)
        sys.stdin.readline()
        print("looked", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
