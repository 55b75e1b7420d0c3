"""``/v1/messages`` as a `Dialect`, and its free sibling that only counts."""

from dataclasses import replace
from functools import partial

from llm_cost_middleware.simulator.reading import Dialect

from .reply import error_frame, frames, message
from .request import read_messages

MESSAGES = Dialect("anthropic", "messages", "msg_01", 22, read_messages, message, frames, error_frame)
COUNT_TOKENS = replace(MESSAGES, endpoint="messages/count_tokens", read=partial(read_messages, counting=True))
