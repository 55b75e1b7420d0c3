"""Errors of Anthropic: how to read a body, and what each one means, a row a rule."""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.provider import ErrorRule

ERROR_RULES: tuple[ErrorRule, ...] = ()


def read_error(body: Any) -> tuple[str, str, str]:
    """An error body to (type, code, message), empty where absent."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "", "", str(body or "")
    return str(error.get("type") or ""), str(error.get("code") or ""), str(error.get("message") or "")
