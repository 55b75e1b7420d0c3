"""What proves a ledger backend, shipped: the conformance suite, a state machine, and a clock that is turned by hand."""
