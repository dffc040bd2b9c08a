"""What the service answers, as values: pictures, runs, models. Everything that comes from it is checked, since it may be another program.

Knows nothing of connections. A reply that is not as agreed raises RemoteError.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from colorize import errors
from colorize.errors import RemoteError

ZIP = "application/zip"
LONGEST_REASON = 500
STATUSES = frozenset({"pending", "running", "succeeded", "failed", "stopped"})


@dataclass(frozen=True, kw_only=True)
class Colored:
    """A picture in colour; a zip where several files were asked for."""

    data: bytes = field(repr=False)
    """The file."""
    content_type: str
    """`image/jpeg` and the like; `application/zip` where candidates or a confidence map come with it."""
    model: str
    model_sha256: str
    """The digest of its weights; empty where the service does not say."""
    mean_confidence: float
    """0…1."""
    timings: Mapping[str, float]
    """Milliseconds by stage: decode, predict, encode."""

    def files(self) -> dict[str, bytes]:
        """The files of an answer that is a zip, by the names that the service gave them. Raises RemoteError for one that is damaged.

        The names are for telling the files apart: never write to a path that is made of them.
        """
        found: dict[str, bytes] = {}
        try:
            with zipfile.ZipFile(BytesIO(self.data)) as archive:
                for entry in archive.infolist():
                    if entry.compress_type != zipfile.ZIP_STORED:  # pictures do not compress: something else may be a bomb
                        raise RemoteError("the answer: is a zip with compressed files, which the service does not send")
                    found[entry.filename] = archive.read(entry)
        except RemoteError:  # which is a ValueError
            raise
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError, struct.error) as error:
            raise RemoteError(f"the answer: is no zip that can be read ({one_line(str(error))})") from error
        return found

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all, replacing what is there. Raises PictureError."""
        from colorize.imaging.files import write_whole

        write_whole(path, self.data)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a bulk run is."""

    id: str
    source: str
    target: str
    status: str
    """pending, running, succeeded, failed or stopped."""
    counts: Mapping[str, int]
    """Files: coloured, skipped, failed, listed. Of a run that has only begun, 0."""
    failures: tuple[tuple[str, str], ...]
    """(path, reason) of the first 100."""
    seconds: float
    """Since it began; of a run that is over, how long it took."""
    reason: str | None
    """Why the run as a whole failed; None where it did not."""

    @property
    def is_over(self) -> bool:
        return is_over(self.status)


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that the service offers."""

    name: str
    sha256: str
    parameters: int
    working_size: int
    loaded: bool
    """Whether it is in memory: the first request for another one takes longer."""
    is_default: bool
    """Whether it colours where none is named."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    """Names are looked up whatever their case."""
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON. Raises RemoteError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise RemoteError("the service: answers with something that is not JSON: is it `colorize serve`?") from error

    @property
    def is_reasoned(self) -> bool:
        """Whether a refusal says why, as those of the service do."""
        return self._told is not None

    def reason(self) -> str:
        """What a refusal says, in one line."""
        told = self._told
        return f"the service answers with status {self.status}" if told is None else one_line(told)

    @cached_property
    def _told(self) -> str | None:
        try:
            told = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return told if isinstance(told, str) and told.strip() else None


def one_line(text: str) -> str:
    """Text of the service's, as it may stand in a message: one line, printable, of bounded length."""
    return errors.one_line(text, LONGEST_REASON)


def colored(reply: Reply) -> Colored:
    """The answer to POST /v1/colorize."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    model = reply.headers.get("x-colorize-model")
    confidence = _number(reply.headers.get("x-colorize-mean-confidence"))
    if not (kind.startswith("image/") or kind == ZIP) or model is None or confidence is None or not reply.body:
        raise RemoteError("the service: answers with something that is not a coloured picture: is it `colorize serve`?")
    return Colored(
        data=reply.body, content_type=kind, model=one_line(unquote(model)), mean_confidence=confidence,
        model_sha256=one_line(reply.headers.get("x-colorize-model-sha256", "")), timings=timings(reply.headers.get("server-timing", "")),
    )  # fmt: skip


def timings(header: str) -> dict[str, float]:
    """A Server-Timing header: `decode;dur=3.1, predict;dur=20` is {"decode": 3.1, "predict": 20.0}; what has no duration is left out."""
    found = {}
    for metric in header.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            number = _number(value.strip().strip('"'))
            if key.strip().lower() == "dur" and name and number is not None:
                found[one_line(name)] = number
    return found


def run_status(told: Any) -> RunStatus:
    """One run of /v1/archives."""
    try:
        status, counts, failures = told["status"], told.get("counts") or {}, told.get("failures") or []
        if status not in STATUSES:
            raise ValueError(status)
        return RunStatus(
            id=one_line(_text(told["id"])), source=one_line(_text(told["source"])), target=one_line(_text(told["target"])), status=status,
            counts={name: int(counts.get(name, 0)) for name in ("coloured", "skipped", "failed", "listed")},
            failures=tuple((one_line(_text(one["path"])), one_line(_text(one["reason"]))) for one in failures),
            seconds=float(told.get("seconds") or 0.0), reason=one_line(_text(told["reason"])) if told.get("reason") else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _not_as_agreed("a run") from error


def run_statuses(told: Any) -> list[RunStatus]:
    """The runs of GET /v1/archives."""
    return [run_status(one) for one in _list(told, "archives", "the runs")]


def run_id(told: Any) -> str:
    """The id of the run that POST /v1/archives has started."""
    found = told.get("id") if isinstance(told, dict) else None
    if not isinstance(found, str) or not found or one_line(found) != found:
        raise _not_as_agreed("a run")
    return found


def run_state(told: Any) -> str:
    """The status of the run that DELETE /v1/archives/{id} is to end."""
    found = told.get("status") if isinstance(told, dict) else None
    if not isinstance(found, str) or found not in STATUSES:
        raise _not_as_agreed("a run")
    return found


def is_over(status: str) -> bool:
    """Whether a run of that status has ended."""
    return status not in ("pending", "running")


def served_models(told: Any) -> list[ServedModel]:
    """The models of GET /v1/models."""
    try:
        return [
            ServedModel(
                name=one_line(_text(one["name"])), sha256=one_line(_text(one["sha256"])), parameters=int(one["parameters"]),
                working_size=int(one["working_size"]), loaded=bool(one["loaded"]), is_default=one["name"] == told.get("default"),
            )
            for one in _list(told, "models", "the models")
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _not_as_agreed("the models") from error


def _list(told: Any, key: str, what: str) -> list[Any]:
    found = told.get(key) if isinstance(told, dict) else None
    if not isinstance(found, list):
        raise _not_as_agreed(what)
    return found


def _not_as_agreed(what: str) -> RemoteError:
    return RemoteError(f"the service: tells of {what} in another way than agreed: is it `colorize serve`, of this version?")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
