"""Who may call: Signature Version 4, recomputed with botocore's own signer, or a Bedrock API key as bearer token."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from llm_cost_middleware.simulator.refusals import Refusal

from .errors import aws_error

ACCESS_KEY = "AKIDSIMULATED"
SECRET_KEY = "simulated-secret"  # noqa: S105 - what the simulator accepts
SESSION_TOKEN = "simulated-session"  # noqa: S105 - as above; it may be left out
BEARER_TOKEN = "bedrock-api-key-simulated"  # noqa: S105 - as above
_SKEW_S = 300.0
"""A signature is good for five minutes around the time in it (AWS, "Signature Version 4 request signing")."""
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class Caller(NamedTuple):
    """Who called, and where."""

    key: str
    region: str
    """Empty for a bearer token, which names none."""


def check(method: str, url: str, headers: Mapping[str, str], body: bytes, service: str) -> Caller:
    """Return who signed a request.

    Args:
        method: Of HTTP.
        url: As it was sent, percent-encoded.
        headers: By their lower-case names.
        body: The bytes that were sent.
        service: The signing name: ``bedrock`` or ``bedrock-mantle``.

    Raises:
        Refusal: 403.
    """
    authorization = headers.get("authorization", "")
    if authorization.startswith("Bearer "):
        if authorization.removeprefix("Bearer ") != BEARER_TOKEN:
            raise aws_error(
                "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.", status=403
            )
        return Caller(BEARER_TOKEN, "")
    if not authorization:
        raise _refused("MissingAuthenticationTokenException", "Missing Authentication Token")
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        raise _refused("IncompleteSignatureException", "Authorization header requires its parameters.")
    key, day, region, named, signed, signature = found.groups()
    if key != ACCESS_KEY or headers.get("x-amz-security-token", SESSION_TOKEN) != SESSION_TOKEN:
        raise _refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    stamp = headers.get("x-amz-date", "")
    _check_time(stamp, day)
    if named != service:
        raise _refused("InvalidSignatureException", f"Credential should be scoped to correct service: '{service}'.")
    names = signed.split(";")
    if "host" not in names or _signature(method, url, headers, body, (region, service), names, stamp) != signature:
        raise _refused("InvalidSignatureException", _MISMATCH)
    return Caller(key, region)


def _check_time(stamp: str, day: str) -> None:
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _refused("IncompleteSignatureException", f"Date must be in ISO-8601 basic format: '{stamp}'.") from None
    if not stamp.startswith(day):
        raise _refused("InvalidSignatureException", f"Date in Credential scope does not match: {day}, {stamp}")
    late = time.time() - at.timestamp()
    if abs(late) > _SKEW_S:
        what = "expired" if late > 0 else "not yet current"
        raise _refused("InvalidSignatureException", f"Signature {what}: {stamp} is more than 5 min. from now")


def _signature(
    method: str, url: str, headers: Mapping[str, str], body: bytes, scope: tuple[str, str], names: list[str], stamp: str
) -> str:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    region, service = scope
    signed = {name: headers.get(name, "") for name in names}
    request = AWSRequest(method=method, url=url, headers=signed, data=body)
    request.context["timestamp"] = stamp
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _refused(kind: str, message: str) -> Refusal:
    return aws_error(kind, message, status=403)
