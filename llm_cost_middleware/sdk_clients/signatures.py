"""What stands in for a method of an SDK looks like it."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def like(method: Any, function: Any) -> Any:
    """``function`` with the name, the text and the signature of ``method``, which it stands in for."""
    function.__signature__ = inspect.signature(method)
    return functools.update_wrapper(function, method, updated=())
