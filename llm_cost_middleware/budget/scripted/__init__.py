"""Ledger verbs for servers that run whole steps of ours, without I/O: what Redis and PostgreSQL have in common."""
