"""Command line ``llm-cost``. Commands are plain functions, one file each; ``commands`` lists them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``llm-cost``.

    Exit codes: 0, done, also where the answer is empty; 1, the answer is no (``llm-cost help exit-codes``); 2, it could
    not be done: wrong arguments, or a configuration or ledger that cannot be used; standard error has one line.
    """
    # Imported here: ``import llm_cost_middleware.cli`` alone must work without the packages of the command line.
    from llm_cost_middleware.errors import LLMCostError, MissingExtraError
    from llm_cost_middleware.extras import needed_for

    try:
        with needed_for("llm-cost"):
            from rich.markup import escape

            from llm_cost_middleware.cli.app import app
        app()
    except MissingExtraError as error:  # what would print it in colour may be what is missing
        sys.stderr.write(f"llm-cost: {error}\n")
        sys.exit(2)
    except (LLMCostError, OSError) as error:  # a file that a person named may be anything but there
        from llm_cost_middleware.cli.loading import err

        err.print(f"[bold red]llm-cost:[/] {escape(str(error))}", highlight=False, markup=True)
        sys.exit(2)
