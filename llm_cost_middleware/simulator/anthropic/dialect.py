"""``/v1/messages`` as a `Dialect`."""

from ..reading import Dialect
from .reply import error_frame, frames, message
from .request import read_messages

MESSAGES = Dialect("anthropic", "messages", "msg_01", 22, read_messages, message, frames, error_frame)
