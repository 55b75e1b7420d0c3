"""``/v1/responses``: what it remembers between calls, and its `Dialect`."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.reading import Dialect, Frame, Reading, Reply
from llm_cost_middleware.simulator.refusals import openai_error
from llm_cost_middleware.simulator.tokens import Tokenizer

from . import responses_reply
from .responses_request import read_response

_KEPT = 500
_UNFINISHED: dict[str, Any] = {"completed_at": None, "output": [], "usage": None, "incomplete_details": None}


class Responses:
    """Stored responses, oldest forgotten first, by which later calls continue a conversation or fetch an answer."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, tuple[dict[str, Any], list[Any]]] = OrderedDict()
        self._working: set[str] = set()  # in the background, not yet asked for
        self.dialect = Dialect(
            "openai", "responses", "resp_", 50, self._read, self._reply, self._frames, responses_reply.error_frame
        )

    def get(self, response_id: str) -> dict[str, Any]:
        """Return a stored response.

        Raises:
            Refusal: 404.
        """
        body = self._find(response_id)[0]
        if response_id in self._working:  # the first who asks comes too early
            self._working.discard(response_id)
            return body | _UNFINISHED | {"status": "in_progress"}
        return body

    def cancel(self, response_id: str) -> dict[str, Any]:
        """End a response in the background; one that is finished stays as it is.

        Raises:
            Refusal: 404; 400 for one that was not asked for in the background (platform.openai.com, cancel a response).
        """
        body, items = self._find(response_id)
        if not body["background"]:
            raise openai_error(400, "Cannot cancel a synchronous response.", kind="invalid_request_error")
        if response_id in self._working:
            self._working.discard(response_id)
            body = body | _UNFINISHED | {"status": "cancelled"}
            self._bodies[response_id] = body, items
        return body

    def delete(self, response_id: str) -> dict[str, Any]:
        """Forget a stored response.

        Raises:
            Refusal: 404.
        """
        self._find(response_id)
        del self._bodies[response_id]
        return {"id": response_id, "object": "response", "deleted": True}

    @staticmethod
    def events(body: Mapping[str, Any], chunk: int) -> Iterator[Frame]:
        """Return the events that built up a stored response."""
        return responses_reply.frames_of(body, chunk)

    def clear(self) -> None:
        """Forget everything."""
        self._bodies.clear()

    def _find(self, response_id: str) -> tuple[dict[str, Any], list[Any]]:
        found = self._bodies.get(response_id)
        if found is None:
            raise openai_error(404, f"Response with id '{response_id}' not found.", kind="invalid_request_error")
        return found

    def _read(self, body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
        earlier: list[Any] = []
        if previous := body.get("previous_response_id"):
            if previous not in self._bodies:
                raise openai_error(
                    400,
                    f"Previous response with id '{previous}' not found.",
                    kind="invalid_request_error",
                    param="previous_response_id",
                    code="previous_response_not_found",
                )
            earlier = self._bodies[previous][1]
        return read_response(body, headers, rule, index, earlier)

    def _finish(self, out: Reply) -> dict[str, Any]:
        finished = responses_reply.response(out)
        if out.reading.request.body.get("store") is not False:
            self._bodies[out.answer_id] = (finished, [*out.reading.extra["items"], *finished["output"]])
            if len(self._bodies) > _KEPT:
                self._bodies.popitem(last=False)
        return finished

    def _reply(self, out: Reply) -> dict[str, Any]:
        finished = self._finish(out)
        if finished["background"]:
            self._working.add(out.answer_id)
            return finished | _UNFINISHED | {"status": "queued", "service_tier": "auto"}
        return finished

    def _frames(self, out: Reply, chunk: int) -> Iterator[Frame]:
        return responses_reply.frames(out, self._finish(out), chunk)
