"""Bulk runs that clients start: each is a Ray job, `colorize archive --json`, on the cluster that the service runs on.

Nothing about a run is kept here: Ray's job server knows source, target and status, the job's output has its counts and failures. So a
run goes on, and is told of, when the service is started anew, by whichever replica is asked. It ends with its cluster; the same run again,
there or on another one, does what is missing. Jobs that this module has not submitted are neither shown nor stopped.

The job server is a part of Ray's dashboard: `ray start --head` has it, and `cluster.connect(jobs=True)` gives a Ray that is started here
one, on 127.0.0.1 and behind the token that Ray makes for every local cluster.
Calls of the job server block, so they are made in threads of their own; none is on the path of a picture, also where it hangs.
"""

import asyncio
import json
import re
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar, cast

import ray
import requests
from pydantic import BaseModel, ConfigDict, Field
from ray._private import ray_constants  # where the job server's address lies in Ray's own store
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_initialized
from ray.job_submission import JobStatus

from colorize.errors import ModelError, one_line
from colorize.model.card import DEFAULT_VIVIDNESS
from colorize.model.device import GPU_SHARE
from colorize.serve.roots import MAX_LENGTH, Allowed, OutsideError, Roots
from colorize.serve.upload import Refusal
from colorize.submit.submission import CALL_SECONDS, PatientClient, submit_job

LISTED_RUNS = 50
LISTED_FAILURES = 100
LONGEST_REASON = 500

RETRY_SECONDS = 30
"""What Retry-After says while other runs are under way."""

PATIENCE = CALL_SECONDS + 10
"""How long a request waits for the job server."""

THREADS = 4
"""Calls of the job server at a time; others wait for their turn."""

_ID = re.compile(r"archive-\d{8}T\d{6}-[0-9a-f]{8}")
_MARK, _SOURCE, _TARGET = "colorize", "colorize_source", "colorize_target"
_PROGRAM = "from colorize.cli.main import run; run()"
_COMPLAINT = "colorize: "

Status = Literal["pending", "running", "succeeded", "failed", "stopped"]

T = TypeVar("T")


class ArchiveOrder(BaseModel):
    """The body of `POST /v1/archives`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    source: str = Field(min_length=1, max_length=MAX_LENGTH)
    """The folder of the pictures, as the service's machines see it: an absolute path, or a URL such as `s3://bucket/scans`."""

    target: str = Field(min_length=1, max_length=MAX_LENGTH)
    """The folder for the same tree in colour; it may exist. What a run did not write is never overwritten."""

    vividness: float = Field(default=DEFAULT_VIVIDNESS, ge=0, le=1, allow_inf_nan=False)
    """0 is the most accurate colour, 1 is as colourful as real pictures are."""

    model: str | None = Field(default=None, min_length=1, max_length=100)
    """The name of a model of `GET /v1/models`; none: the service's own."""

    recolor: bool = False
    """Colour pictures anew that are in colour already."""


class Failure(BaseModel):
    """A picture that failed."""

    path: str
    reason: str


class Counts(BaseModel):
    """Files of a run so far; at its end the first three make up the last."""

    coloured: int = 0
    skipped: int = 0
    failed: int = 0
    listed: int = 0


class ArchiveRun(BaseModel):
    """A bulk run."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    source: str
    target: str
    status: Status
    """`succeeded` also where single files failed; `failed` where the run as a whole did."""
    counts: Counts = Counts()
    """`coloured` has those that an earlier run has coloured."""
    failures: list[Failure] = Field(default_factory=list, max_length=LISTED_FAILURES)
    """The first 100."""
    seconds: float = 0.0
    """Since it was submitted; of a run that is over, how long it took."""
    reason: str | None = None
    """Why the run as a whole failed."""


class Started(BaseModel):
    """What is said of a run that was started or is to stop."""

    id: str
    status: Status


class ArchiveList(BaseModel):
    """The runs that the cluster knows, the newest first."""

    archives: list[ArchiveRun]


class _LateError(Refusal):
    """The job server has not answered in time, and may still do what it was asked."""


class ArchiveRuns:
    """The runs of a cluster. What its methods refuse they raise as Refusal: 403, all of them, where no root is allowed."""

    def __init__(
        self,
        roots: Roots,
        *,
        limit: int,
        workers: int | None,
        reserved_cpus: float,
        reserved_gpus: float,
        model_of: Callable[[str | None], str],
    ) -> None:
        """limit: runs at a time. workers: of one run; None: its share of what the service, which takes `reserved_cpus` and `reserved_gpus`,
        leaves free. model_of: from the name that a client gives to what `colorize archive --model` takes; raises ModelError."""
        self._roots = roots
        self._limit = limit
        self._workers = workers
        self._reserved_cpus, self._reserved_gpus = reserved_cpus, reserved_gpus
        self._model_of = model_of
        self._client: PatientClient | None = None
        self._threads = ThreadPoolExecutor(THREADS, "bulk")  # not asyncio's, in which uploads are written and models are looked up
        self._submitting = threading.Lock()
        self._over: dict[str, ArchiveRun] = {}
        self._keeping = threading.Lock()
        """Of `_over`: several requests' threads look into it and make room in it."""

    async def start(self, order: ArchiveOrder) -> Started:
        """Submits a run.

        Refused with 403 outside the roots, 404 for a model that is none, 422 for a target in its source, 429 while enough are under way;
        with 504 where the job server takes so long that the run may have begun.
        """
        try:
            return await self._off_loop(self._start, order)
        except _LateError as error:  # no 503, which would say that nothing has begun: a client would submit it again
            raise Refusal(504, "bulk runs: Ray's job server takes too long; the run may have begun: see GET /v1/archives") from error

    async def runs(self) -> ArchiveList:
        """The runs that the cluster knows, the newest first, without their failures."""
        return ArchiveList(archives=await self._off_loop(self._list))

    async def find(self, run: str) -> ArchiveRun:
        """One run. Refused with 404 where there is none of that id."""
        return await self._off_loop(lambda run: self._told(self._job(run)), run)

    async def stop(self, run: str) -> Started:
        """Asks a run to end; what it has done is kept. Of a run that is over, nothing is changed."""
        return await self._off_loop(self._stop, run)

    async def _off_loop(self, call: Callable[..., T], *arguments: Any) -> T:
        if not self._roots:
            raise Refusal(403, "bulk runs: the operator of this service allows none: its archive_roots are empty")
        try:
            under_way = asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
            return await asyncio.wait_for(under_way, PATIENCE)  # a thread that has it goes on
        except (RuntimeError, OSError, requests.RequestException) as error:  # ConnectionError and TimeoutError are OSErrors
            self._client = None
            kind = _LateError if isinstance(error, TimeoutError | requests.ReadTimeout) else Refusal
            cause = _line(str(error)) or "it takes too long"
            raise kind(503, f"bulk runs: Ray's job server does not answer ({cause})", _retry()) from error

    # In threads

    def _start(self, order: ArchiveOrder) -> Started:
        try:
            source, target = self._roots.admit(order.source), self._roots.admit(order.target)
        except OutsideError as error:
            raise Refusal(403, str(error)) from error
        one, other = f"{source.shown}/", f"{target.shown}/"  # without the query, which a root may have
        if one.startswith(other) or other.startswith(one):
            raise Refusal(422, f"{target.shown}: is the source, lies inside it or around it; give another target")
        try:
            model = self._model_of(order.model)
        except ModelError as error:
            raise Refusal(404, str(error)) from error
        run = f"archive-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        with self._submitting:
            if len(self._under_way()) >= self._limit:
                raise self._full()
            self._submit(run, self._command(order, source, target, model), source, target)
        if run in self._under_way()[self._limit :]:  # another replica submitted one at the same moment, whose id comes first
            self._jobs().stop_job(run)
            raise self._full()
        return Started(id=run, status="pending")

    def _full(self) -> Refusal:
        runs = "1 run" if self._limit == 1 else f"{self._limit:,} runs"
        return Refusal(429, f"bulk runs: {runs} at a time, and as many are under way; try again when one is over", _retry())

    def _under_way(self) -> list[str]:
        return sorted(str(job.submission_id) for job in self._all() if not job.status.is_terminal())

    def _room(self) -> int:
        """How many workers a run gets: its share of what the service leaves free, of CPUs and, where there are any, of GPUs."""
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = resources.get("CPU", 1.0) - self._reserved_cpus
        if gpus := resources.get("GPU", 0.0):
            room = min(room, (gpus - self._reserved_gpus) / GPU_SHARE)
            if room < 1:
                raise Refusal(503, "bulk runs: the service's models take all GPUs: its operator can lower model_gpus", _retry())
        return max(1, int(room // self._limit))

    def _command(self, order: ArchiveOrder, source: Allowed, target: Allowed, model: str) -> str:
        workers = self._workers or self._room()
        options = ["--json", "--vividness", repr(order.vividness), "--model", model, "--workers", str(workers)]
        options += ["--recolor"] if order.recolor else []
        return shlex.join([sys.executable, "-c", _PROGRAM, "archive", *options, "--", source.opened, target.opened])

    def _submit(self, run: str, command: str, source: Allowed, target: Allowed) -> None:
        submit_job(
            self._jobs(), entrypoint=command, submission_id=run, runtime_env={},
            metadata={_MARK: "archive", _SOURCE: source.shown, _TARGET: target.shown},
        )  # fmt: skip

    def _list(self) -> list[ArchiveRun]:
        newest = sorted(self._all(), key=lambda job: str(job.submission_id), reverse=True)[:LISTED_RUNS]
        return [self._told(job).model_copy(update={"failures": []}) for job in newest]

    def _stop(self, run: str) -> Started:
        job = self._job(run)
        if job.status.is_terminal():
            return Started(id=run, status=self._told(job).status)
        self._jobs().stop_job(run)
        return Started(id=run, status=cast(Status, str(job.status).lower()))

    def _all(self) -> list[JobDetails]:
        return [job for job in self._jobs().list_jobs() if _is_ours(job)]

    def _job(self, run: str) -> JobDetails:
        """The job of a run of this module's, found among all: the job server answers for foreign ids too."""
        missing = Refusal(404, f"{_line(run)[:80]}: there is no such run")
        if not _ID.fullmatch(run):
            raise missing
        for job in self._all():
            if job.submission_id == run:
                return job
        raise missing

    def _told(self, job: JobDetails) -> ArchiveRun:
        """What is known of a run; kept, for a bounded number of those that are over, since their output can be long."""
        run = str(job.submission_id)
        with self._keeping:
            if run in self._over:
                return self._over[run]
        metadata, is_known = job.metadata or {}, True
        try:
            log = "" if job.status == JobStatus.PENDING else self._jobs().get_job_logs(run)
        except RuntimeError:  # it went with the node that the run was on, or cannot be had now
            log, is_known = "", False
        counts, failures, is_whole, complaint = read_output(log)
        status = cast(Status, str(job.status).lower())
        if status == "failed" and is_whole:  # its exit code says that files failed
            status = "succeeded"
        end = job.end_time or time.time() * 1000
        told = ArchiveRun(
            id=run, source=metadata[_SOURCE], target=metadata[_TARGET], status=status, counts=counts, failures=failures,
            seconds=max(0.0, round((end - (job.start_time or end)) / 1000, 3)),
            reason=(complaint or _line(str(job.message).partition("\n")[0])) if status == "failed" else None,
        )  # fmt: skip
        if job.status.is_terminal() and is_known:
            with self._keeping:
                self._over[run] = told
                while len(self._over) > 2 * LISTED_RUNS:
                    del self._over[next(iter(self._over))]
        return told

    def _jobs(self) -> PatientClient:
        """The job server of this cluster; RuntimeError where it has none."""
        if self._client is None:
            try:
                self._client = PatientClient(self._address())
            except (RuntimeError, OSError, requests.RequestException) as error:
                raise RuntimeError(f"the cluster has none: start Ray with its dashboard; {error}") from error
        return self._client

    def _address(self) -> str:
        if not _internal_kv_initialized():  # type: ignore[no-untyped-call]
            raise RuntimeError("there is no Ray here")
        address = _internal_kv_get(ray_constants.DASHBOARD_ADDRESS, namespace=ray_constants.KV_NAMESPACE_DASHBOARD)
        if not address:
            raise RuntimeError("there is no dashboard")
        return f"http://{address.decode()}"


def read_output(log: str) -> tuple[Counts, list[Failure], bool, str | None]:
    """(counts, first failures, whether the run came to its end, its last complaint) from the output of `colorize archive --json`.

    Whatever else has printed into it, Ray or a library, is passed over.
    """
    counts, failures, is_whole, complaint = Counts(), [], False, None
    for line in log.splitlines():
        if line.startswith(_COMPLAINT):
            complaint = _line(line.removeprefix(_COMPLAINT))
        if not line.startswith('{"counts": '):
            continue
        try:
            told = json.loads(line)
            counts = Counts.model_validate(told["counts"])
            failures += [Failure(path=_line(one["path"]), reason=_line(one["reason"])) for one in told["failures"]]
            is_whole = told["last"] is True
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a line that another one was printed into
            continue
    return counts, failures[:LISTED_FAILURES], is_whole, complaint


def _is_ours(job: JobDetails) -> bool:
    metadata = job.metadata or {}
    is_marked = metadata.get(_MARK) == "archive" and _SOURCE in metadata and _TARGET in metadata
    return is_marked and _ID.fullmatch(job.submission_id or "") is not None


def _retry() -> dict[str, str]:
    return {"Retry-After": str(RETRY_SECONDS)}


def _line(text: str) -> str:
    return one_line(text, LONGEST_REASON)
