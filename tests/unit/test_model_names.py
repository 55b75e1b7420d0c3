"""By which names a model goes: what a pause or a budget of a name is of."""

import pytest

from llm_cost_middleware.model_names import names_of


@pytest.mark.parametrize(
    ("provider", "called", "also"),
    [
        ("anthropic", "claude-haiku-4-5-20251001", ["claude-haiku-4-5"]),
        ("anthropic", "claude-haiku-4-5@20251001", ["claude-haiku-4-5"]),
        ("anthropic", "claude-haiku-4-5-20251001-v1:0", ["claude-haiku-4-5"]),
        ("anthropic", "claude-haiku-4-5", []),
        ("anthropic", "claude-sonnet-4-20250514", ["claude-sonnet-4", "claude-sonnet-4-0"]),
        ("anthropic", "claude-sonnet-4-0", ["claude-sonnet-4"]),
        ("anthropic", "claude-3-7-sonnet-20250219", ["claude-3-7-sonnet", "claude-3-7-sonnet-latest"]),
        ("anthropic", "claude-3-7-sonnet-latest", ["claude-3-7-sonnet"]),
        ("openai", "gpt-5-2025-08-07", ["gpt-5"]),
        ("openai", "openai/gpt-5-2025-08-07", ["gpt-5-2025-08-07", "gpt-5"]),
        ("openai", "gpt-4-0613", ["gpt-4"]),
        ("openai", "gpt-4-1106-preview", []),  # another model than gpt-4
        ("openai", "gpt-5-mini", []),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::id", []),  # its price is another one
        ("openai", "o3-2025-04-16", ["o3"]),
        ("openai", "openai/", []),
        ("openai", "x" * 300 + "-2025-01-01", []),
        ("", "anything", []),
    ],
)
def test_a_call_goes_by_its_own_name_and_by_those_of_its_family(provider, called, also):
    assert names_of(provider, called) == (called, *also)
