"""What the owner of a router set of its retries and fallbacks, read when a call fails, and what a failure then means.

LiteLLM's own are off for each request that is sent; its rules are followed here, where every attempt has a reservation.
They are those of docs.litellm.ai/docs/routing, the same in 1.102, 1.108 and 1.110.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import litellm
import openai

from llm_cost_middleware.integrations.litellm.entry_points import FACADE, deployment_id, named_deployments
from llm_cost_middleware.request import RetryAdvice

UNSAID = openai.DEFAULT_MAX_RETRIES
"""The number of retries of a router for which nobody set any."""
_POLICY_FIELDS: Mapping[type[Exception], str] = {
    litellm.AuthenticationError: "AuthenticationErrorRetries",
    litellm.Timeout: "TimeoutErrorRetries",
    litellm.RateLimitError: "RateLimitErrorRetries",
    litellm.ContentPolicyViolationError: "ContentPolicyViolationErrorRetries",
    litellm.BadRequestError: "BadRequestErrorRetries",
    litellm.ServiceUnavailableError: "ServiceUnavailableErrorRetries",
    litellm.InternalServerError: "InternalServerErrorRetries",
}
"""The fields of LiteLLM's ``RetryPolicy``, by the error each stands for."""
_RETRIED = frozenset({408, 409, 429})
_ACCOUNT = frozenset({401, 403, 429})
"""Statuses that are about one key or one account: another deployment may answer."""
_SERVER_ERROR = 500


class OwnerSettings(NamedTuple):
    """A router's settings as they stand now."""

    num_retries: int | None
    retry_after: float
    max_fallbacks: int
    retry_policy: Any
    model_group_retry_policy: Any
    fallbacks: Sequence[Any] | None
    context_window_fallbacks: Sequence[Any] | None
    content_policy_fallbacks: Sequence[Any] | None
    fallback_on_unsupported_params: bool

    @classmethod
    def of(cls, router: Any) -> OwnerSettings:
        """Read off a router: through ``settings()`` where it has it."""
        if FACADE:
            settings = router.settings()
            found = {**settings.as_dict(), "content_policy_fallbacks": settings.content_policy_fallbacks}
        else:
            found = vars(router)
        return cls(
            router.num_retries,
            router.retry_after or 0.0,
            router.max_fallbacks,
            found.get("retry_policy"),
            found.get("model_group_retry_policy"),
            found.get("fallbacks"),
            found.get("context_window_fallbacks"),
            found.get("content_policy_fallbacks"),
            bool(found.get("fallback_on_unsupported_params", True)),
        )

    def over(self, arguments: Mapping[str, Any]) -> OwnerSettings:
        """The same, with what the request itself says."""
        said = {name: arguments[name] for name in _OF_REQUESTS if name in arguments}
        if said.get("max_fallbacks") is None:
            said.pop("max_fallbacks", None)
        return self._replace(**said)


_OF_REQUESTS = (
    "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_group_retry_policy", "max_fallbacks",
)  # fmt: skip


class Deployments(NamedTuple):
    """The deployments of a name."""

    name: str = ""
    healthy: tuple[str, ...] = ()
    """The ids of those that do not cool down."""
    total: int = 0


def deployments_of(router: Any, model: str) -> Deployments:
    """Ask after a failure, for then LiteLLM has noted it."""
    ids = _ids(router, model)
    return _healthy(model, ids, _cooldowns(router).get_active_cooldowns(ids, None) if ids else ())


async def adeployments_of(router: Any, model: str) -> Deployments:
    """As ``deployments_of``; a store on a server is not waited for by the event loop."""
    ids = _ids(router, model)
    return _healthy(model, ids, await _cooldowns(router).async_get_active_cooldowns(ids, None) if ids else ())


def _ids(router: Any, model: str) -> list[str]:
    ids = [str(deployment_id(entry)) for entry in named_deployments(router, model)]
    return [] if ids == [model] else ids  # one that is called by its id is not retried


def _cooldowns(router: Any) -> Any:
    return router.health().cooldowns if FACADE else router.cooldown_cache


def _healthy(model: str, ids: Sequence[str], cooled: Iterable[tuple[str, Any]]) -> Deployments:
    cold = {name for name, _ in cooled}
    return Deployments(model, tuple(name for name in ids if name not in cold), len(ids))


class OwnerRetries:
    """The ``RetryTerms`` of one call of one model group.

    The number of retries is, in this order: the request's ``num_retries``, that of the failed deployment, the router's;
    over the last two goes a retry policy of the group or the router for the error's class. Where nobody set any, it is
    that of ``[retry]``.

    Args:
        router: The router that is asked.
        arguments: The call's, as the caller gave them.
        unsaid: The router's number of retries if nobody set it; ``None``: somebody did.
        deadline_s: Seconds that are left for the whole call.
    """

    __slots__ = (
        "_arguments", "_deadline_s", "_refusing", "_retries", "_router", "_ruled", "_unsaid", "deployments", "failures",
    )  # fmt: skip

    def __init__(
        self, router: Any, arguments: Mapping[str, Any], unsaid: int | None, deadline_s: float | None = None
    ) -> None:
        self._router, self._arguments = router, arguments
        self._unsaid, self._deadline_s = unsaid, deadline_s
        self._retries: int | None = None
        self._ruled = False
        self._refusing: set[str] = set()
        """Deployments that would refuse this request again."""
        self.deployments = Deployments()
        """As they were after the last failure."""
        self.failures = 0
        """Attempts that failed."""

    def after(self, error: BaseException, attempt: int) -> RetryAdvice:
        """As LiteLLM decides, but for what our own rules know better: an account that is empty stays so."""
        del attempt
        settings = OwnerSettings.of(self._router).over(self._arguments)
        self.failures += 1
        if self.failures == 1:  # as LiteLLM does: the first error decides how many there are
            self._retries, self._ruled = self._count(error, settings)
        status = getattr(error, "status_code", None)
        elsewhere = self.deployments.total > 1 and bool(self.deployments.healthy)
        if isinstance(status, int) and not _passes(status) and (failed := getattr(error, "failed_deployment_id", None)):
            self._refusing.add(failed)
        if self._ruled:  # a number for this class: said of it by name, so it is retried
            retryable = None if isinstance(error, litellm.RateLimitError) and not elsewhere else True
        elif not _is_retried(error, settings, self.deployments):
            retryable = False
        else:
            retryable = True if elsewhere and status in _ACCOUNT else None
        return RetryAdvice(
            max_attempts=None if self._retries is None else self._retries + 1,
            retryable=retryable,
            at_once=elsewhere,
            least_delay_s=0.0 if elsewhere else float(settings.retry_after),
            deadline_s=self._deadline_s,
        )

    def name_of_next(self, model: str) -> str:
        """Where the next attempt goes: the group, or one deployment of it where another has refused the request."""
        if not self._refusing or model != self.deployments.name:  # a routed call may go on to another group
            return model
        return next((name for name in self.deployments.healthy if name not in self._refusing), model)

    def _count(self, error: BaseException, settings: OwnerSettings) -> tuple[int | None, bool]:
        """The number of retries, and whether a retry policy names it."""
        asked = self._arguments.get("num_retries")
        if asked != 0:
            ruled = _retries_by_class(error, settings, str(self._arguments["model"]))
            if ruled is not None:
                return ruled, True
        if asked is not None:
            return asked, False
        own = getattr(error, "num_retries", None)  # LiteLLM leaves that of the deployment on most of its errors
        if not isinstance(own, int):
            own = self._of_deployment(getattr(error, "failed_deployment_id", None))
        if own is not None:
            return own, False
        return (None if settings.num_retries == self._unsaid else settings.num_retries), False

    def _of_deployment(self, failed: str | None) -> int | None:
        """The number of a group's deployment: of the one that failed, where that is known."""
        entries = named_deployments(self._router, str(self._arguments["model"]))
        found = (
            entry["litellm_params"].get("num_retries") for entry in entries if failed in (None, deployment_id(entry))
        )
        return next((int(number) for number in found if number is not None), None)


def _retries_by_class(error: BaseException, settings: OwnerSettings, group: str) -> int | None:
    of_groups = settings.model_group_retry_policy or {}
    policy = of_groups.get(group, settings.retry_policy)
    if policy is None:
        return None
    numbers = policy if isinstance(policy, Mapping) else vars(policy)
    fields = [_POLICY_FIELDS[kind] for kind in type(error).__mro__ if kind in _POLICY_FIELDS]
    found = (numbers.get(name) for name in (*fields, "DefaultRetries"))
    return next((number for number in found if number is not None), None)


def _is_retried(error: BaseException, settings: OwnerSettings, deployments: Deployments) -> bool:
    """Whether LiteLLM would send the request to the same group again."""
    status = getattr(error, "status_code", None)
    if isinstance(error, litellm.ContextWindowExceededError) and settings.context_window_fallbacks is not None:
        return False
    if isinstance(error, litellm.ContentPolicyViolationError) and settings.content_policy_fallbacks is not None:
        return False
    if isinstance(error, openai.NotFoundError) or (
        isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError) and deployments.total <= 1
    ):
        return False
    return (status is None or _passes(status) or status in _ACCOUNT) and bool(deployments.healthy)


def _passes(status: int) -> bool:
    """Whether a failure of this status may pass, as LiteLLM sees it."""
    return status in _RETRIED or status >= _SERVER_ERROR
