"""Budgets that cannot be overspent: money is authorized before a call and settled after it, as in payments.

This package knows money, scopes and time. It never sees a model, a token or a price: ``memo`` is opaque to it.

``model``    values: budgets, reservations, receipts, balances, rows
``rules``    pure decisions: windows, accounts, state transitions, balances
``backend``  contract of a storage: six verbs, and optional abilities
``backends`` the storages: memory, SQLite, Redis
``ledger``   the façades ``Ledger`` and ``AsyncLedger``, and ``hold()``

To add a storage: write the verbs of ``backend.Backend`` (``tests/conformance/test_out_of_tree.py`` has the shortest, a
page on top of ``rules``), prove the class with ``testing.LedgerBackendTests``, and give it the scheme of a URL: a row
in ``ledger/schemes.py``, or ``Ledger.register`` from outside the package.
"""
