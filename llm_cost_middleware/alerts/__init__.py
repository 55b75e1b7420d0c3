"""Alerts: what ``[[alerts]]`` watches for, found in the ledger and told where people look.

``settings`` is the section, ``facts`` reads the ledger, ``rules`` decides (pure), ``record`` remembers across processes
what was raised and told, ``channels`` tells it, ``service`` runs all of it in a thread of its own.
"""

from llm_cost_middleware.alerts.settings import AlertConfig, read_alerts

__all__ = ["AlertConfig", "read_alerts"]
