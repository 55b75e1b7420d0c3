"""A router's face of the OpenAI client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class Chat:
    """``router.chat.completions.create`` with nothing remembered from one call to the next.

    Args:
        router: The router, whose ``completion`` and ``acompletion`` are called.
        defaults: Its ``default_litellm_params``.
    """

    def __init__(self, router: Any, defaults: Mapping[str, Any]) -> None:
        self._router = router
        self._defaults = dict(defaults)
        self._asynchronous = bool(self._defaults.pop("acompletion", False))

    @property
    def completions(self) -> Self:
        """As the OpenAI client's."""
        return self

    def create(self, messages: list[Any], model: str | None = None, **kwargs: Any) -> Any:
        """A completion; awaitable where ``acompletion`` is among the router's ``default_litellm_params``."""
        arguments = {**self._defaults, **kwargs}
        arguments["model"] = model or arguments.get("model")
        method = self._router.acompletion if self._asynchronous else self._router.completion
        return method(messages=messages, **arguments)
