"""Errors of Google's front: ``{"error": {"code", "message", "status"}}``, around a stream often inside a list.

Bodies as quoted in anthropics/claude-code 1440 (an object), cline/cline 651 and Aider-AI/aider 1912 (inside a list),
yym68686/uni-api 41 (``FAILED_PRECONDITION``); names and statuses from ``google.rpc.Code``. What the model itself
refuses comes in Anthropic's words.
"""

from collections.abc import Mapping

from llm_cost_middleware.simulator.refusals import Refusal, anthropic_error

_QUOTA = (
    "Quota exceeded for aiplatform.googleapis.com/online_prediction_input_tokens_per_minute_per_base_model with base "
    "model: anthropic-claude-haiku-4-5. Please submit a quota increase request. "
    "https://cloud.google.com/vertex-ai/docs/generative-ai/quotas-genai."
)
STATUSES: Mapping[str, tuple[int, str]] = {
    "INVALID_ARGUMENT": (400, "Request contains an invalid argument."),
    "FAILED_PRECONDITION": (400, "Project `p` is not allowed to use Publisher Model `m`"),
    "UNAUTHENTICATED": (
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token or other valid credential.",
    ),
    "PERMISSION_DENIED": (
        403,
        "Permission 'aiplatform.endpoints.predict' denied on resource 'm' (or it may not exist).",
    ),
    "NOT_FOUND": (404, "Publisher Model was not found or your project does not have access to it."),
    "ABORTED": (409, "The operation was aborted."),
    "RESOURCE_EXHAUSTED": (429, _QUOTA),
    "CANCELLED": (499, "The operation was cancelled."),
    "INTERNAL": (500, "Internal error encountered."),
    "UNAVAILABLE": (503, "The service is currently unavailable."),
    "DEADLINE_EXCEEDED": (504, "Deadline expired before operation could complete."),
}
"""By name: the HTTP status of the code, and a usual message."""
_BY_STATUS = {status: name for name, (status, _) in STATUSES.items() if name != "FAILED_PRECONDITION"}


def google_error(name: str, message: str | None = None, *, listed: bool = False) -> Refusal:
    """Return an error of Google's front by the name of its status; `listed`: inside a list of one."""
    code, usual = STATUSES[name]
    body = {"error": {"code": code, "message": message or usual, "status": name}}
    return Refusal(code, [body] if listed else body)


def of_status(status: int, message: str | None = None) -> Refusal:
    """Return the error with an HTTP status: of Google's front, or the model's own where Google has none (529)."""
    name = _BY_STATUS.get(status)
    return anthropic_error(status, message) if name is None else google_error(name, message)
