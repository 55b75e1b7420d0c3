"""Who spent what: one query over the ledger, by any dimension, over time, filtered; as values, tables, files.

``bookings`` reads what calls finally cost from any storage, ``query`` what is asked, ``folding`` adds up,
``report`` is the answer, ``exports`` writes it.
"""

from llm_cost_middleware.reports.commitments import Commitment, commitments
from llm_cost_middleware.reports.folding import Selection, make_report
from llm_cost_middleware.reports.query import DIMENSIONS, OVER, Query
from llm_cost_middleware.reports.report import MEASURES, Report, ReportRow

__all__ = [
    "DIMENSIONS", "MEASURES", "OVER", "Commitment", "Query", "Report", "ReportRow", "Selection", "commitments",
    "make_report",
]  # fmt: skip
