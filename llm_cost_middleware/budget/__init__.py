"""Budgets that cannot be overspent: money is reserved before a call leaves and settled when its answer is in.

This room knows money, scopes and time; it never sees a model, a token or a price.

``model``    values: budgets, reservations, receipts, balances, rows
``rules``    pure decisions: windows, who is charged, what a reservation may become
``backend``  the contract of a storage: six verbs, and optional abilities
``ledger``   the façades ``Ledger`` and ``AsyncLedger``, and ``hold()``
"""
