"""The file by which ``process_many`` goes on where it was: one line for each answered text, written as it comes.

It holds answers, because whoever goes on needs them: it is written only where its user names it, and readable by that
user alone. Texts are in it as digests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.tracker import CostRecord
from llm_cost_middleware.usage import TokenUsage
from llm_cost_middleware.whole_lines import write_line

_VERSION = 1


class BatchLine(NamedTuple):
    """A batch that was begun, and the places of the texts that are in it, in its order."""

    batch_id: str
    places: tuple[int, ...]


class ProgressFile:
    """Reads what was done, and adds what is done.

    Args:
        path: The file; made where it is missing.
        items: The texts.
        what: What else decides an answer: the system prompt and the provider.

    Raises:
        ConfigurationError: It is of another work, or no such file.
    """

    def __init__(self, path: Path | str, items: list[str], *what: str) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise ConfigurationError(f"must be the path of a file, not {path!r}", key="journal")
        self._path = Path(path).expanduser()
        self._digests = [_digest(item, *what) for item in items]
        self.done: dict[int, CallOutcome] = {}
        self.batches: list[BatchLine] = []
        try:
            fresh = not self._path.exists()
            for line in () if fresh else self._lines():
                self._take(line)
            # made readable by its user alone before anything is in it
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._path}: {error.strerror}", key="journal") from error
        if fresh or self._path.stat().st_size == 0:
            self._write({"v": _VERSION, "kind": "process_many"})
        elif not self._path.read_bytes().endswith(b"\n"):  # the line that was cut off by a crash
            os.write(self._file, b"\n")

    def add(self, place: int, answer: CallOutcome) -> None:
        """Write down an answer. Raises ``OSError``."""
        response = answer.response
        self._write(
            {
                "place": place,
                "item": self._digests[place],
                "call": answer.call_id,
                "type": [type(response).__module__, type(response).__qualname__],
                "response": response.to_dict(mode="json"),
                "decision": answer.decision.to_json(),
                "records": [record.as_dict() for record in answer.records],
            }
        )

    def begin(self, batch_id: str, places: list[int]) -> None:
        """Write down that texts are about to go in a batch."""
        self._write({"batch": batch_id, "places": places, "items": [self._digests[place] for place in places]})

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, line: dict[str, Any]) -> None:
        write_line(self._file, json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        os.fsync(self._file)

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:  # a crash may cut a line inside a character
            for number, text in enumerate(file):
                try:
                    line = json.loads(text.decode("utf-8", "surrogatepass"))
                except ValueError:
                    if number == 0:
                        raise self._foreign() from None
                    continue  # cut off by a crash: what it said is asked again
                if number == 0 and (not isinstance(line, dict) or line.get("kind") != "process_many"):
                    raise self._foreign()
                yield line

    def _foreign(self) -> ConfigurationError:
        return ConfigurationError(f"{self._path} is no journal of process_many: name a new file", key="journal")

    def _take(self, line: dict[str, Any]) -> None:
        if "batch" in line:
            places = line["places"]
            if any(at >= len(self._digests) for at in places) or line["items"] != [self._digests[at] for at in places]:
                raise self._other()
            self.batches.append(BatchLine(line["batch"], tuple(places)))
        elif "place" in line:
            place = line["place"]
            if place >= len(self._digests) or self._digests[place] != line["item"]:
                raise self._other()
            module, name = line["type"]
            if module.partition(".")[0] not in NAMES:
                raise self._foreign()
            response = getattr(import_module(module), name).construct(**line["response"])
            records = tuple(_record(one) for one in line["records"])
            decision = RoutingDecision.from_json(line["decision"])
            self.done[place] = CallOutcome(response, line["call"], decision, records)

    def _other(self) -> ConfigurationError:
        return ConfigurationError(f"{self._path} is of other texts, or of another system prompt", key="journal")


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


_FIELDS = {field.name for field in fields(CostRecord)}


def _record(values: dict[str, Any]) -> CostRecord:
    usage = values.get("usage")
    known = {name: value for name, value in values.items() if name in _FIELDS}
    return CostRecord(**known | {"usage": TokenUsage(**usage) if usage else None, "scopes": tuple(values["scopes"])})
