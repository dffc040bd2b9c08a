"""Every call on the service, written once, for the client that blocks and the one that does not.

A call is a generator: it yields what is to be done (a `Request` to send, a `Pause`, a file to `Read`), is sent what came of it, and returns
its result. So retries, checks and messages stand here, without a connection; `blocking` and `asynchronous` only carry the steps out.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from colorize.client import KEY_VARIABLE, SERVER, answers
from colorize.client.answers import Colored, Reply, RunStatus, ServedModel
from colorize.client.retry import Attempts, RetryPolicy, retry_after_seconds
from colorize.errors import ConfigError, PictureError, RemoteError

MAX_PICTURE_BYTES = 1 << 30
MAX_ANSWER_BYTES = 1 << 30
"""Neither side can make this one hold more."""

POLL_SECONDS = (0.5, 10.0)
"""How often a run is asked for, at first and at most seldom."""

ANSWER_SECONDS = 1.0
"""How long before the end of a wait the last question is asked, which has that time for its answer."""

RETRIED = frozenset({429, 503})
"""The service has done nothing and says that it will, later."""

LOST = frozenset({500, 502, 504})
"""What stands between says that the service was lost under way: Serve's proxy by a bare 500 when a replica dies, others by the other two.
A 500 of the service's own, which another attempt would meet again, has its reason as JSON."""

_THE_PICTURE = "the picture: "
"""How the service names a picture, whose name it does not know."""

T = TypeVar("T")
Picture = bytes | os.PathLike[str]


class Settings(TypedDict, total=False):
    """How a picture is coloured; what is left out is as the service has it."""

    model: str
    vividness: float
    """0…1: 0 is the most accurate colour, 1 as colourful as real pictures."""
    temperature: float
    candidates: int
    """How many colourings; more than one are answered as a zip."""
    candidate: int
    """Only this one of them, from 1."""
    format: Literal["jpeg", "png", "tiff", "webp"]
    confidence: bool | Literal["only"]
    """True: a zip with the confidence map beside the picture; "only": the map itself."""
    hints: Sequence[Mapping[str, Any]]
    """Colours that are given: {"x": pixels, "y": pixels, "color": "#rrggbb"}, of the upright original."""


class ArchiveSettings(TypedDict, total=False):
    """How an archive is coloured."""

    model: str
    vividness: float
    recolor: bool
    """Colour pictures anew that are in colour already."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request, to be sent once."""

    method: str
    path: str
    is_repeatable: bool = True
    """Sent twice, it has done no more than sent once."""
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    files: Mapping[str, Any] | None = field(default=None, repr=False)
    json: Any = None
    seconds: float = float("inf")
    """For the answer."""

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `httpx2.Client.stream`."""
        given = {"params": dict(self.params), "content": self.content, "files": self.files, "json": self.json}
        timeout = httpx2.Timeout(self.seconds, connect=min(self.seconds, 10.0))
        return {name: value for name, value in given.items() if value is not None} | {"timeout": timeout}


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Seconds in which nothing is done."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Read:
    """A file that is to be read: `carry_out` does it, in a thread where nothing may block."""

    path: Path

    def carry_out(self) -> bytes:
        """The file's bytes. Raises PictureError."""
        from colorize.imaging.files import reading

        with reading(self.path, str(self.path)) as file:
            data = file.read(MAX_PICTURE_BYTES + 1)
        if len(data) > MAX_PICTURE_BYTES:
            raise PictureError(f"{self.path}: is too large; files of up to {MAX_PICTURE_BYTES:,} bytes are sent")
        return data


OnPause = Callable[[str], None]
"""Is told, in one line, why a call is to be tried again."""

Step = Request | Pause | Read
Call = Generator[Step, Any, T]


class Collector:
    """The body of a reply as it comes in: within a size, and within a time, however slowly it drips."""

    def __init__(self, seconds: float) -> None:
        self._body = bytearray()
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def add(self, chunk: bytes) -> None:
        """Raises RemoteError for a body that is too large, httpx2.ReadTimeout for one that takes too long."""
        if len(self._body) + len(chunk) > MAX_ANSWER_BYTES:
            raise RemoteError(f"the service: answers with more than {MAX_ANSWER_BYTES:,} bytes")
        if time.monotonic() > self._deadline:
            raise httpx2.ReadTimeout(f"the answer is not complete after {self._seconds:g} s")
        self._body += chunk

    def reply(self, status: int, headers: httpx2.Headers) -> Reply:
        """The whole."""
        return Reply(status=status, headers=headers, body=bytes(self._body))


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where a service is and how it is spoken to, checked; and the calls on it."""

    server: str = SERVER
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 150.0
    """Seconds for one attempt's answer. The service does not know of it, and finishes what it has begun."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.server)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and self.server.isprintable()
            url = httpx2.URL(self.server)
            url.raw_host.decode().encode("idna")  # as the system's resolver will: a name such as `head..local` is none
            is_url = is_url and url.is_absolute_url
        except (ValueError, httpx2.InvalidURL):
            is_url = False
        if not is_url or parts.username is not None or parts.password is not None or parts.query or parts.fragment or " " in self.server:
            raise ConfigError(f"server {self._shown}: give the service's address, such as {SERVER}")
        if self.api_key is not None and not re.fullmatch(r"[\x21-\x7e]{1,500}", self.api_key):
            raise ConfigError(f"api_key (from the argument or {KEY_VARIABLE}): must be 1 to 500 printable ASCII characters, without spaces")
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"timeout {self.timeout}: must be more than 0 s, and finite")

    @property
    def _shown(self) -> str:
        """The address as a message may have it: whatever could be a user and password is left out."""
        return answers.one_line(re.sub(r"(?<=//)[^/]*@", "…@", self.server)) or "''"

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `httpx2.Client` and `httpx2.AsyncClient`."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "colorize"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.server,
            "headers": headers,
            "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            # A proxy that the environment names is for other machines; httpx would send it what is meant for this one.
            "trust_env": urlsplit(self.server).hostname not in ("127.0.0.1", "::1", "localhost"),
        }

    # The calls

    def colorize(self, picture: Picture, settings: Settings) -> Call[Colored]:
        """POST /v1/colorize: a pure function, so it may be asked again whenever no answer came."""
        params, hints = _query(settings)
        name = None if isinstance(picture, bytes) else str(Path(picture))
        data = picture if isinstance(picture, bytes) else (yield Read(path=Path(picture)))
        if hints is None:
            request = Request(method="POST", path="/v1/colorize", params=params, content=data)
        else:
            files = {"file": ("picture", data, "application/octet-stream"), "hints": (None, hints, "application/json")}
            request = Request(method="POST", path="/v1/colorize", params=params, files=files)
        return answers.colored((yield from self._ask(request, name)))

    def models(self) -> Call[list[ServedModel]]:
        """GET /v1/models."""
        reply: Reply = yield from self._ask(Request(method="GET", path="/v1/models"))
        return answers.served_models(reply.json())

    def submit_archive(self, source: str, target: str, settings: ArchiveSettings, on_pause: OnPause | None = None) -> Call[str]:
        """POST /v1/archives: the run's id. Not asked again where no answer came, since a run may have begun."""
        _check_names(settings, ArchiveSettings)
        wanted = {"source": str(source), "target": str(target)} | _given(settings)
        for name, value in wanted.items():
            _encoded(name, value, _as_json)
        request = Request(method="POST", path="/v1/archives", is_repeatable=False, json=wanted)
        reply: Reply = yield from self._ask(request, on_pause=on_pause)
        return answers.run_id(reply.json())

    def archives(self) -> Call[list[RunStatus]]:
        """GET /v1/archives."""
        reply: Reply = yield from self._ask(Request(method="GET", path="/v1/archives"))
        return answers.run_statuses(reply.json())

    def archive(self, run: str, on_pause: OnPause | None = None, until: float = float("inf")) -> Call[RunStatus]:
        """GET /v1/archives/{id}. until: as `_ask` has it."""
        reply: Reply = yield from self._ask(Request(method="GET", path=_path_of(run)), on_pause=on_pause, until=until)
        return answers.run_status(reply.json())

    def cancel(self, run: str) -> Call[str]:
        """DELETE /v1/archives/{id}: the run stops soon; what it has done is kept. Its status now: one that was over has its end."""
        reply: Reply = yield from self._ask(Request(method="DELETE", path=_path_of(run)))
        return answers.run_state(reply.json())

    def wait(
        self, run: str, timeout: float | None, on_status: Callable[[RunStatus], None] | None, on_pause: OnPause | None = None
    ) -> Call[RunStatus]:
        """Asks for a run until it is over. While the service is started anew it is asked again, for as long as its patience, and what is
        left of `timeout`, last. The last question is asked so early that it can be answered in time."""
        until, (pause, longest) = float("inf") if timeout is None else time.monotonic() + timeout, POLL_SECONDS
        status: RunStatus | None = None

        def left() -> float:
            return max(0.0, until - time.monotonic())

        while True:
            patience = min(self.policy.patience, max(0.0, left() - ANSWER_SECONDS))
            policy = RetryPolicy(attempts=max(self.policy.attempts, 1000), patience=patience)
            try:
                status = yield from replace(self, policy=policy).archive(run, on_pause, until)
            except RemoteError as error:
                if status is None or error.status is not None or left():
                    raise  # else it had only what was left of the time; the answer before it stands
            else:
                if on_status is not None:
                    on_status(status)
                if status.is_over:
                    return status
            rest = left()
            yield Pause(seconds=rest if rest <= ANSWER_SECONDS else min(pause, rest - ANSWER_SECONDS))
            if rest <= ANSWER_SECONDS:
                raise RemoteError(f"run {run}: is not over after {timeout:g} s; it goes on")
            pause = min(longest, pause * 1.3)

    # What they have in common

    def _ask(
        self, request: Request, picture: str | None = None, on_pause: OnPause | None = None, until: float = float("inf")
    ) -> Call[Reply]:
        """The reply of success to a request. picture: the name of its file. on_pause: is told why before the first pause. until: when, by
        the monotonic clock, the answer is to be there; one that has less than a second has a second."""
        attempts = Attempts(policy=self.policy)
        while True:
            retry_after, status = 0.0, None
            try:
                seconds = min(self.timeout, max(ANSWER_SECONDS, until - time.monotonic()))
                reply: Reply = yield replace(request, seconds=seconds)
            except httpx2.HTTPError as error:
                reason = f"no answer ({_cause(error)})"
                is_retried = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) or (
                    request.is_repeatable and not (request.method == "POST" and isinstance(error, httpx2.ReadTimeout))
                )  # a picture that took too long is still worked on: sent again, it would be twice
            else:
                if 200 <= reply.status < 300:
                    return reply
                status, reason = reply.status, reply.reason()
                is_lost = status in LOST and not reply.is_reasoned
                is_retried = status in RETRIED or (is_lost and request.is_repeatable)
                retry_after = retry_after_seconds(reply.headers.get("retry-after"))
            pause = attempts.pause(retry_after) if is_retried else None
            if pause is None:
                tried = f" (tried {attempts.made} times in {attempts.seconds:.0f} s)" if attempts.made > 1 else ""
                if picture is not None and status is not None and reason.startswith(_THE_PICTURE):
                    raise RemoteError(f"{picture}: {reason.removeprefix(_THE_PICTURE)}{tried}", status)
                raise RemoteError(f"{self.server}: {reason}{tried}", status)
            if on_pause is not None and attempts.made == 2:
                on_pause(f"{self.server}: {reason}")
            yield Pause(seconds=pause)


def connection(server: str, api_key: str | None, timeout: float, attempts: int, patience: float) -> Connection:
    """A connection; the key from the environment where none is given. Raises ConfigError."""
    key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE) or None
    return Connection(server=server.rstrip("/"), api_key=key, timeout=timeout, policy=RetryPolicy(attempts=attempts, patience=patience))


def check_many(concurrency: int, settings: Settings) -> None:
    """Raises ConfigError where that many requests cannot be under way, and for settings that no picture can be sent with."""
    if not 1 <= concurrency <= 256:
        raise ConfigError(f"concurrency {concurrency}: must lie in 1…256")
    _query(settings)


def _query(settings: Settings) -> tuple[dict[str, str], str | None]:
    """(the query, the hints as JSON). Raises ConfigError for a setting that there is none of, or whose value cannot be sent."""
    _check_names(settings, Settings)
    given = _given(settings)
    hints = given.pop("hints", None)
    query = {name: _encoded(name, value, _as_text) for name, value in given.items()}
    return query, None if hints is None else _encoded("hints", hints, lambda hints: _as_json([dict(hint) for hint in hints]))


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None, which are as the service has them."""
    return {name: value for name, value in settings.items() if value is not None}


def _encoded(name: str, value: Any, encode: Callable[[Any], str]) -> str:
    """A setting's value as it is sent. Raises ConfigError where it cannot be."""
    try:
        return encode(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} {answers.one_line(str(value))[:80]!r}: cannot be sent ({answers.one_line(str(error))})") from error


def _as_text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text.encode()
    return text


def _as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def _check_names(settings: Mapping[str, Any], kind: type) -> None:
    known = kind.__annotations__
    if unknown := [name for name in settings if name not in known]:
        raise ConfigError(f"{unknown[0]}: there is no such setting; there are {', '.join(known)}")


def _path_of(run: str) -> str:
    if not run or run in (".", ".."):
        raise ConfigError(f"run {run!r}: is not the id of a run")
    return f"/v1/archives/{_encoded('run', run, lambda run: quote(run, safe=''))}"


def _cause(error: httpx2.HTTPError) -> str:
    """Why there was no answer; httpx's timeouts have no text of their own."""
    told: dict[type[httpx2.HTTPError], str] = {
        httpx2.ConnectTimeout: "connecting took too long",
        httpx2.ReadTimeout: "it took too long",
        httpx2.WriteTimeout: "sending took too long",
    }
    text = str(error) or told.get(type(error), type(error).__name__)
    return answers.one_line(re.sub(r"^\[Errno -?\d+\] ", "", text)).lower()
