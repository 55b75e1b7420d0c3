"""Errors of the runtime: a status, ``x-amzn-ErrorType``, and ``{"message": …}``; statuses as in the service model."""

from collections.abc import Mapping

from llm_cost_middleware.simulator.refusals import Refusal

STATUSES: Mapping[str, tuple[int, str]] = {
    "AccessDeniedException": (403, "You don't have access to the model with the specified model ID."),
    "InternalServerException": (500, "The system encountered an unexpected error. Try your request again."),
    "ModelErrorException": (424, "The system encountered an error while processing the model."),
    "ModelNotReadyException": (429, "Model is not ready for inference. Wait and try your request again."),
    "ModelStreamErrorException": (424, "An error occurred while streaming the response. Retry your request."),
    "ModelTimeoutException": (408, "Model has timed out in processing the request. Try your request again."),
    "ResourceNotFoundException": (404, "Could not resolve the foundation model from the provided model identifier."),
    "ServiceQuotaExceededException": (400, "Your request exceeds the service quota for your account."),
    "ServiceUnavailableException": (503, "Bedrock is unable to process your request."),
    "ThrottlingException": (429, "Too many requests, please wait before trying again."),
    "ValidationException": (400, "Malformed input request, please reformat your input and try again."),
}  # fmt: skip
"""By name: the status of ``error.httpStatusCode`` in the service model, and the usual message."""
IN_STREAMS = (
    "internalServerException",
    "modelStreamErrorException",
    "modelTimeoutException",
    "serviceUnavailableException",
    "throttlingException",
    "validationException",
)
"""Members of ``ResponseStream`` that are exceptions; ``ConverseStreamOutput`` has all but the timeout."""
_BY_STATUS = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    413: "ValidationException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
    529: "ServiceUnavailableException",
}
_FROM_MODEL = "The model returned the following errors: "


def aws_error(kind: str, message: str | None = None, *, status: int | None = None) -> Refusal:
    """Return an error by its name."""
    known, usual = STATUSES.get(kind, (400, "Unexpected error"))
    headers = {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    return Refusal(status or known, {"message": message or usual}, headers)


def invalid(message: str) -> Refusal:
    """Return a ``ValidationException``."""
    return aws_error("ValidationException", message)


def of_status(status: int, message: str | None = None) -> Refusal:
    """Return the error that the runtime answers with a status."""
    kind = _BY_STATUS.get(status, "InternalServerException")
    return aws_error(kind, message, status=None if status in (401, 413, 529) else status)


def worded(refusal: Refusal) -> Refusal:
    """Return a refusal of the model's own checks as the runtime hands it on."""
    if any(name.lower() == "x-amzn-errortype" for name in refusal.headers):
        return refusal
    if isinstance(refusal.body, dict) and isinstance(error := refusal.body.get("error"), dict):
        text = str(error.get("message", ""))
        return of_status(refusal.status, _FROM_MODEL + text if refusal.status == 400 else text)  # noqa: PLR2004 - HTTP
    return refusal
