"""The groups that a call is sent to, one after the other: LiteLLM's fallbacks, each a call of ours with its own hold.

``FallbackWalk.steps`` is a generator without I/O: it yields calls, is sent their answers or thrown their errors, and
returns the answer. The synchronous and the asynchronous router drive it alike.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import litellm

from llm_cost_middleware.errors import BudgetExceededError, CircuitOpenError, LLMCostError
from llm_cost_middleware.integrations.litellm.entry_points import FACADE
from llm_cost_middleware.integrations.litellm.owner import OwnerSettings

_MOCKS: Mapping[str, type[Exception]] = {
    "mock_testing_fallbacks": litellm.InternalServerError,
    "mock_testing_context_fallbacks": litellm.ContextWindowExceededError,
    "mock_testing_content_policy_fallbacks": litellm.ContentPolicyViolationError,
}
"""Arguments by which an owner tries his fallbacks out: the error that stands for the first group's."""
TRIED_OUT = (*_MOCKS, "mock_testing_rate_limit_error")


class Hop(NamedTuple):
    """One call of one group."""

    arguments: Mapping[str, Any]
    """As the caller gave them; ``model`` and what a fallback changes are the group's."""
    depth: int
    """How many fallbacks led here."""
    deadline_s: float | None = None
    """Seconds that are left; ``None``: all of them."""


Steps = Generator[Hop, Any, Any]


class FallbackWalk:
    """One call through its groups, in LiteLLM's order.

    A budget that refuses the first attempt ends the call: money that is short moves no call to another model. After a
    failure each fallback is asked that fits its budget. If none answers, the first group's error is raised, with a note
    for each of the others.

    Args:
        settings: Reads the router's settings; asked only if a group fails.
        seconds_left: How long another attempt may still begin.
    """

    __slots__ = ("_attempted", "_seconds_left", "_settings")

    def __init__(self, settings: Callable[[], OwnerSettings], seconds_left: Callable[[], float]) -> None:
        self._settings, self._seconds_left = settings, seconds_left
        self._attempted: set[str] = set()

    def steps(self, arguments: Mapping[str, Any], depth: int = 0) -> Steps:
        """Ask the group that ``arguments`` name, then those that follow it."""
        answer, failed = yield from self._ask(arguments, depth)
        if failed is None:
            return answer
        arguments = {name: value for name, value in arguments.items() if name not in TRIED_OUT}
        for entry in self._following(arguments, depth, failed):
            arguments = {**arguments, **(entry if isinstance(entry, Mapping) else {"model": entry})}
            depth += 1
            try:
                return (yield from self.steps(arguments, depth))
            except Exception as other:  # noqa: BLE001 - the first group's error is the one that is raised
                failed.add_note(f"llm_cost_middleware: fallback {arguments['model']!r}: {_line(other)}")
        raise failed

    def _ask(self, arguments: Mapping[str, Any], depth: int) -> Generator[Hop, Any, tuple[Any, Exception | None]]:
        """The answer of one group, or the error from which LiteLLM falls back; raises every other."""
        if (mock := _mocked(arguments)) is not None:
            return None, mock
        try:
            answer = yield Hop(arguments, depth, self._seconds_left() if depth else None)
        except BudgetExceededError as refusal:
            if not _is_provider_error(refusal.__cause__):
                raise
            return None, refusal  # a retry did not fit: what failed before may still be answered elsewhere
        except CircuitOpenError as opened:
            return None, opened
        except LLMCostError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, LiteLLM falls back from it
            return None, error
        return answer, None

    def _following(self, arguments: Mapping[str, Any], depth: int, failed: Exception) -> Iterator[Any]:
        """What to ask next, as long as there is time: nothing twice in one call."""
        settings, model = self._settings().over(arguments), str(arguments["model"])
        if arguments.get("disable_fallbacks") is True or depth >= settings.max_fallbacks:
            return
        self._attempted.add(model)
        cause = failed.__cause__ if isinstance(failed, BudgetExceededError) else failed
        for entry in chain_after(cause, model, settings) or ():
            key = _key(entry)
            if key not in self._attempted and self._seconds_left() > 0:
                self._attempted.add(key)
                yield entry


def chain_after(error: BaseException | None, model: str, settings: OwnerSettings) -> Sequence[Any] | None:
    """The groups that follow ``model`` after ``error``; ``None`` where there are none."""
    fallbacks = settings.fallbacks
    if fallbacks and _is_plain_list(fallbacks):
        return fallbacks
    if not settings.fallback_on_unsupported_params and _is_bad_request(error):
        return None
    if isinstance(error, litellm.ContextWindowExceededError) and settings.context_window_fallbacks is not None:
        own = _listed(settings.context_window_fallbacks, model)
        if own is not None or not FACADE:  # from 1.110 on, the general list is next where this one has no such group
            return own
    if isinstance(error, litellm.ContentPolicyViolationError) and settings.content_policy_fallbacks is not None:
        return _listed(settings.content_policy_fallbacks, model)
    if fallbacks is None:
        return None
    provider, _, bare = model.partition("/")
    candidates = [model] if not bare or provider not in litellm.provider_list else [model, bare]
    return next((found for name in (*candidates, "*") if (found := _listed(fallbacks, name)) is not None), None)


def check_blocked(answer: Any, arguments: Mapping[str, Any], settings: Callable[[], OwnerSettings]) -> None:
    """Look for an answer that a filter cut, where there is a fallback for it.

    LiteLLM looks for it, too, but not where a request forbids fallbacks, as each of ours does.

    Raises:
        litellm.ContentPolicyViolationError: By which LiteLLM falls back from such an answer.
    """
    messages = isinstance(answer, dict)
    if messages:
        cut = answer.get("stop_reason") == "refusal" and bool(answer.get("stop_details"))
    else:
        first = next(iter(getattr(answer, "choices", None) or ()), None)
        cut = getattr(first, "finish_reason", None) == "content_filter"
    if not cut or arguments.get("disable_fallbacks") is True:
        return
    model, found = str(arguments["model"]), settings().over(arguments)
    error = litellm.ContentPolicyViolationError(message="Response output was blocked.", model=model, llm_provider="")
    if found.content_policy_fallbacks is None and not messages:  # of the others, LiteLLM looks at the default ones
        chain = _listed(found.fallbacks or (), "*")
    else:
        chain = chain_after(error, model, found)
    if chain is not None:
        raise error


def _listed(table: Sequence[Any], model: str) -> Sequence[Any] | None:
    for item in table:
        if isinstance(item, Mapping) and next(iter(item), None) == model:
            found: Sequence[Any] = item[model]
            return found
    return None


def _is_plain_list(fallbacks: Sequence[Any]) -> bool:
    """Whether it lists groups, or calls, and not groups by the one that fails."""
    if all(isinstance(item, str) for item in fallbacks):
        return True
    entries = [item for item in fallbacks if isinstance(item, Mapping)]
    return len(entries) == len(fallbacks) and any(not isinstance(item.get("model", []), list) for item in entries)


def _is_bad_request(error: BaseException | None) -> bool:
    if not isinstance(error, litellm.BadRequestError):
        return False
    if isinstance(error, litellm.UnsupportedParamsError):
        return True
    others = (litellm.ContextWindowExceededError, litellm.ContentPolicyViolationError)
    return not isinstance(error, others) and error.status_code == 400 and bool(error.llm_provider)  # noqa: PLR2004 - the status


def _is_provider_error(error: BaseException | None) -> bool:
    return isinstance(error, Exception) and not isinstance(error, LLMCostError)


def _mocked(arguments: Mapping[str, Any]) -> Exception | None:
    for name, kind in _MOCKS.items():
        if str(arguments.get(name)).lower() == "true":
            model = arguments["model"]
            message = f"This is a mock exception for model={model}, to trigger a fallback."
            return kind(message=message, model=model, llm_provider="")  # type: ignore[call-arg]  # LiteLLM's own
    return None


def _key(entry: Any) -> str:
    """What makes two entries the same attempt: the name alone, or everything that the entry changes."""
    if isinstance(entry, Mapping):
        return str(entry["model"]) if set(entry) == {"model"} else json.dumps(entry, sort_keys=True, default=str)
    return str(entry)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def drive(steps: Steps, call: Callable[[Hop], Any]) -> Any:
    """Send every call of a walk, and return the answer."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            hop = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value
        finally:
            answer = error = None  # the traceback of an error holds this frame: no cycle of references
        try:
            answer = call(hop)
        except Exception as raised:  # noqa: BLE001 - the walk decides
            error = raised


async def adrive(steps: Steps, call: Callable[[Hop], Awaitable[Any]]) -> Any:
    """As ``drive``, on an event loop."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            hop = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value
        finally:
            answer = error = None
        try:
            answer = await call(hop)
        except Exception as raised:  # noqa: BLE001 - the walk decides
            error = raised


def tell(answer: Any, depth: int, retries: int) -> Any:
    """Write into LiteLLM's headers of an answer how many fallbacks and retries led to it, as LiteLLM does."""
    hidden = answer.get("_hidden_params") if isinstance(answer, dict) else getattr(answer, "_hidden_params", None)
    if isinstance(hidden, dict):
        headers = hidden.setdefault("additional_headers", {})
        headers |= {"x-litellm-attempted-fallbacks": depth, "x-litellm-attempted-retries": retries}
    return answer
