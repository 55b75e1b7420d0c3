"""A process of some version of the package that works on a ledger, and says what becomes of each step it is told.

Usage: version_worker.py URL; a line on its input is a step: ``hold ID``, ``settle ID``, ``balance``.
"""

import sys

from llm_cost_middleware.budget.ledger import Ledger


def main(url):
    try:
        ledger = Ledger.open(url)
    except Exception as error:  # noqa: BLE001 - the test looks at what it is
        print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        return
    print("open", flush=True)
    for line in sys.stdin:
        verb, _, id_ = line.strip().partition(" ")
        try:
            if verb == "hold":
                ledger.reserve("0.5", ["user:a"], id=id_)
            elif verb == "settle":
                ledger.settle(id_, "0.25")
            print("done" if verb != "balance" else ledger.balance("global").settled, flush=True)
        except Exception as error:  # noqa: BLE001 - as above
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
