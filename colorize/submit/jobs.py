"""Ray jobs: a command of this program started on a cluster, its log, its status and its end. Knows nothing of what the commands do.

A job gets the program with it: the wheel, which the nodes unpack and put before everything else on the module path. Ray's other way, to
have each node `pip install` it, resolves the dependencies anew, torch and Ray among them, and needs a network and a `pip` on the path of
Ray's processes. What the program depends on is the cluster's.

All calls block. Every failure of the job server is a ClusterError in one line.
"""

import asyncio
import contextlib
import logging
import math
import re
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

import aiohttp
import requests
from packaging.requirements import Requirement
from ray.dashboard.modules.job.pydantic_models import JobDetails, JobType
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from colorize import auth
from colorize.errors import ClusterError, ColorizeError, ConfigError, one_line, printable
from colorize.storage.url import WAY_OUT, has_secret, without_secrets
from colorize.submit.address import direct, job_server
from colorize.submit.submission import CALL_SECONDS, NOT_READY_SECONDS, PatientClient, submit_job
from colorize.submit.wheel import build_wheel

ENTRY = "colorize.cli.job"
"""The module that runs a command as the driver of a job."""

SILENT_SECONDS = 30.0
"""How long a log may say nothing before the job server is asked whether it and the job are still there."""

CLOSE_SECONDS = 0.5
"""How long the end of a followed log waits for the server's farewell, which Ray's does not give."""

_COMMAND = "colorize_command"
_COMPLAINT = "colorize: "
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,199}")
_RAYS_OWN = re.compile(r"Running entrypoint for job |[\d-]+ [\d:,]+\s+INFO job_manager\.py:")
"""What Ray writes into the log of every job; its command, passwords of URLs among it, is one of these lines."""

_NOT_FOUND = "Version check returned 404"
"""How Ray's client begins when what answers is no job server of any Ray."""

_ANOTHER = "no Ray job server answers there, but another program: give the address of Ray's, http://host:8265"

_NO_REASON = "Job entrypoint command failed with exit code"
"""How Ray's message begins when all that it knows is the end of the log."""

_TRACEBACK = re.compile(r"^Traceback \(|\btraceback:$")
"""In the first line of a message whose last line says what it was: Ray adds the traceback of what has ended its own part of a job."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job as it is now."""

    id: str
    command: str
    """`colorize archive …`; of a job that something else has submitted, what it runs. Without passwords of URLs."""
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    """Why it failed, in one line; of other jobs what Ray says."""
    started: float | None
    """When it was submitted, in seconds since 1970."""
    ended: float | None
    """When it ended; None while it has not."""

    @property
    def is_over(self) -> bool:
        return JobStatus(self.status).is_terminal()


class JobClient:
    """The jobs of one cluster."""

    def __init__(self, address: str | None = None) -> None:
        """`address`: `http://host:8265` of its job server, `host:port` of either, `ray://host:port`, or `auto`. None: what
        RAY_API_SERVER_ADDRESS or RAY_ADDRESS names, else the Ray of this machine. The token is Ray's own: RAY_AUTH_TOKEN,
        RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.

        Raises ClusterError where no job server answers, the token is missing or wrong, or its Ray is one that this program cannot run on.
        """
        self._url = job_server(address)
        self.address = without_secrets(self._url)
        """As it may be shown and kept: a proxy before the job server may ask for a password, which its URL then has."""
        with self._told():
            self._server = _JobServer(self._url)
            self._server.check_version()

    def start(
        self, arguments: Sequence[str], *, id: str | None = None, environment: Mapping[str, str] | None = None, cpus: float = 0
    ) -> str:
        """Submits `colorize ARGUMENTS…` and returns the job's id.

        `id`: the job's; None: a new one. `environment`: variables for the job and its workers; everyone who may
        look at the cluster's jobs can read them. `cpus`: what the command itself keeps while it runs, beside what its workers take;
        more than 0 lets it run on any node, else it runs on the head.

        Raises ClusterError when it cannot be submitted, ConfigError for an id or cpus that are none, for arguments that hold a secret, and
        when the package of this program is too large or cannot be made, since the disk for temporary files is full, say.
        """
        for number, word in enumerate(arguments):
            if has_secret(word):
                raise ConfigError(
                    f"{one_line(without_secrets(word))}: word {number + 1} of the command holds a secret, which everyone who may look at "
                    f"the cluster's jobs could read: {WAY_OUT}"
                )
        if not 0 <= cpus < math.inf:
            raise ConfigError(f"entrypoint_num_cpus {cpus:g}: must be 0 or more, and finite")
        id = _checked(id or new_id(arguments))
        with contextlib.ExitStack() as stack:
            try:
                wheel = build_wheel()
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                package = Path(folder) / Path(wheel.name).with_suffix(".zip")  # what Ray calls a package that is only to be unpacked
                package.write_bytes(wheel.data)
            except OSError as error:
                raise ConfigError(f"the package of this program cannot be made on this machine: {one_line(error)}") from error
            with self._told():
                return submit_job(
                    self._server, entrypoint=_entrypoint(arguments), submission_id=id, entrypoint_num_cpus=cpus or None,
                    runtime_env={"working_dir": str(package), "env_vars": dict(environment or {})},
                    metadata={_COMMAND: shlex.join(["colorize", *arguments])},
                )  # fmt: skip

    def state(self, id: str) -> JobState:
        """A job as it is now. Raises ClusterError when there is none of that id, ConfigError for one that no job can have."""
        with self._told(_checked(id)):
            return _state(self._server.get_job_info(id))

    def follow(self, id: str) -> Iterator[str]:
        """The log from its beginning, line by line without line breaks, until the job is over.

        Comes through a job server that is gone for a moment. Raises as `state`, and ClusterError when the server is gone for longer than
        CALL_SECONDS.
        """
        self.state(id)
        read, unfinished, deadline = 0, "", time.monotonic() + CALL_SECONDS
        with asyncio.Runner() as runner:
            while True:
                chunks = self._chunks(id, skip=read)
                try:
                    while (chunk := runner.run(_next(chunks))) is not None:
                        if not chunk and self.state(id).is_over:
                            break
                        read += len(chunk)
                        deadline = time.monotonic() + CALL_SECONDS
                        *lines, unfinished = (unfinished + chunk).split("\n")
                        yield from (line for line in lines if not _RAYS_OWN.match(line))
                    if self.state(id).is_over:
                        break
                except (aiohttp.ClientError, OSError, ClusterError) as error:
                    if time.monotonic() > deadline:
                        raise ClusterError(f"{self.address}: the job server is gone; the job may go on: {_said(error)}") from error
                finally:
                    runner.run(chunks.aclose())
                time.sleep(NOT_READY_SECONDS)
        if unfinished:
            yield unfinished

    def stop(self, id: str) -> None:
        """Asks a job to end, and returns at once; it has STOP_SECONDS to keep what it has done. A job that is over stays what it is.

        Raises as `state`.
        """
        with self._told(_checked(id)):
            self._server.stop_job(id)

    def list(self) -> "list[JobState]":
        """All submitted jobs that the cluster remembers, the newest first."""
        with self._told():
            jobs = [_state(job) for job in self._server.list_jobs() if job.type is JobType.SUBMISSION]
        return sorted(jobs, key=lambda job: job.started or 0, reverse=True)

    async def _chunks(self, id: str, *, skip: int) -> AsyncGenerator[str, None]:
        """The log behind its first `skip` characters, in pieces, until the server has no more of it; "" after each SILENT_SECONDS without.

        Ray's server answers no pings, so a connection that has died is found out by asking for the job.
        """
        address, patience = f"{self._url}/api/jobs/{id}/logs/tail", aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS)
        async with aiohttp.ClientSession(headers=auth.header()) as session, session.ws_connect(address, timeout=patience) as pieces:
            while True:
                received = asyncio.ensure_future(pieces.receive())
                try:
                    while not (await asyncio.wait({received}, timeout=SILENT_SECONDS))[0]:
                        yield ""
                    piece = received.result()
                finally:
                    received.cancel()
                if piece.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                    return
                if piece.type is not aiohttp.WSMsgType.TEXT:
                    raise aiohttp.ClientError(f"{piece.type.name} in the log")
                if new := piece.data[skip:]:
                    yield new
                skip = max(0, skip - len(piece.data))

    @contextlib.contextmanager
    def _told(self, id: str | None = None) -> Iterator[None]:
        """What Ray's client raises, as a ClusterError in one line."""
        try:
            yield
        except ColorizeError:
            raise
        except AuthenticationError as error:
            raise ClusterError(f"{self.address}: {auth.problem()}") from error
        except requests.exceptions.Timeout as error:
            raise ClusterError(f"{self.address}: the job server does not answer within {CALL_SECONDS:g} s") from error
        except requests.exceptions.JSONDecodeError as error:
            raise ClusterError(f"{self.address}: {_ANOTHER}") from error
        except (requests.RequestException, OSError, KeyError, TypeError, ValueError) as error:  # the last three: an answer of another make
            raise ClusterError(f"{self.address}: no Ray job server answers there: {_said(error)}") from error
        except RuntimeError as error:
            if id is not None and "does not exist" in str(error):
                raise ClusterError(f"{id}: there is no such job on {self.address}; colorize jobs lists them") from error
            if str(error).startswith(_NOT_FOUND):
                raise ClusterError(f"{self.address}: {_ANOTHER}") from error
            raise ClusterError(f"{self.address}: {_said(error)}") from error


class _JobServer(PatientClient):
    """The same at one address, whatever RAY_ADDRESS says, with the token that is there."""

    def __init__(self, address: str) -> None:
        logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)  # it tells of each upload
        with direct(address):
            super().__init__(address, headers=auth.header())

    def check_version(self) -> None:
        """Raises ClusterError when the cluster's Ray is older or newer than this program can run on."""
        needed = next(one for one in map(Requirement, requires("colorize") or ()) if one.name == "ray")
        if not needed.specifier.contains(str(self._server_ray_version), prereleases=True):
            raise ClusterError(f"{self._address}: Ray {self._server_ray_version} runs there, and colorize needs {needed.specifier}")


def new_id(arguments: Sequence[str]) -> str:
    """An id for the job of a command, made of its name and the time."""
    return f"{arguments[0]}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def _said(error: Exception) -> str:
    """What Ray's client says, which repeats the address that it was given."""
    return one_line(without_secrets(str(error)))


def _checked(id: str) -> str:
    """An id that can be one, and a part of a URL. Raises ConfigError for another."""
    if not _ID.fullmatch(id):
        raise ConfigError(f"job id {id!r}: letters, digits, '.', '_' and '-' only, 200 at most")
    return id


def _entrypoint(arguments: Sequence[str]) -> str:
    """The shell command of a job: by this very Python where the node has it with Ray, as the nodes of this machine do, else by its own."""
    has_ray = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ray') is None)"
    return (
        f"for python in {shlex.quote(sys.executable)} python python3; "
        f'do "$python" -c {shlex.quote(has_ray)} 2>/dev/null && exec "$python" {shlex.join(["-m", ENTRY, *arguments])}; done; '
        "echo 'colorize: no python on the path of the node that runs the job has Ray' >&2; exit 1"
    )


def _state(job: JobDetails) -> JobState:
    status = str(job.status)
    command = (job.metadata or {}).get(_COMMAND) or job.entrypoint
    said = without_secrets(job.message or "")
    return JobState(
        id=job.submission_id or job.job_id or "", command=one_line(without_secrets(command)), status=status,
        message=printable(_reason(said)) if job.status == JobStatus.FAILED else one_line(said),
        started=None if job.start_time is None else job.start_time / 1000,
        ended=None if job.end_time is None or not job.status.is_terminal() else job.end_time / 1000,
    )  # fmt: skip


def _reason(message: str) -> str:
    """Why a job failed: the last complaint of the program, else the last line of its log or of a traceback, else what Ray says."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    complaints = [line.removeprefix(_COMPLAINT) for line in lines if line.startswith(_COMPLAINT)]
    if complaints:
        return complaints[-1]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith(_NO_REASON) or _TRACEBACK.search(lines[0]) else lines[0]


async def _next(chunks: AsyncIterator[str]) -> str | None:
    return await anext(chunks, None)
