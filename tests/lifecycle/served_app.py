"""A WSGI application for gunicorn: a pipeline opened before its workers are forked, a call for each request.

Usage: gunicorn --preload served_app:app, with the ledger's URL in LEDGER.
"""

import os

from plain_call import BOTH, answer, request

from llm_cost_middleware import CostConfig, CostPipeline

PIPELINE = CostPipeline(CostConfig(ledger={"url": os.environ["LEDGER"]}, budgets=[{"scope": "global", "limit": 9}]))
PIPELINE.run(request(), lambda _: answer(), providers=BOTH)  # the parent has used it


def app(_, start_response):
    PIPELINE.run(request(), lambda _: answer(), providers=BOTH)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
