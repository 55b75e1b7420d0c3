"""Advice: what would have cost less, from the ledger's own calls, each priced again by itself.

``calls`` is the log in columns, ``kinds`` has one file for each kind of waste, ``pricing`` prices a call as it might
have been served, ``adviser`` ranks and adds up without counting a call's saving twice.
"""

from llm_cost_middleware.advice.adviser import Advice, AdviceReport, advise
from llm_cost_middleware.advice.evidence import Evidence

__all__ = ["Advice", "AdviceReport", "Evidence", "advise"]
