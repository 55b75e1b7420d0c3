"""``python -m llm_cost_middleware`` is the command ``llm-cost``."""

from __future__ import annotations

from llm_cost_middleware.cli import main

if __name__ == "__main__":
    main()
