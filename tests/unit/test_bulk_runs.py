"""Bulk runs against a job server of this process that speaks the protocol of Ray's: what is submitted, told, bounded and left alone."""

import asyncio
import json
import shlex
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colorize.errors import ModelError
from colorize.serve.roots import Roots
from tests.services import Answer, Asked, Stub, answering

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from colorize.serve.bulk import ArchiveOrder, ArchiveRun, ArchiveRuns, Counts, Failure, Started
    from colorize.serve.upload import Refusal
    from colorize.submit.submission import PatientClient

DONE = '{"counts": {"coloured": 3, "skipped": 1, "failed": 1, "listed": 5}, "failures": [], "seconds": 2, "last": true}\n'
PART = '{"counts": {"coloured": 1, "listed": 5}, "failures": [{"path": "a.jpg", "reason": "is text"}], "seconds": 1, "last": false}\n'


class JobServer:
    """What of Ray's job server the service uses."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.stopped: list[str] = []
        self.refusals: list[Answer] = []
        self._lock = threading.Lock()

    def add(self, submission: str, status: str, log: str = "", **given: Any) -> None:
        now = int(time.time() * 1000)
        ours = {"colorize": "archive", "colorize_source": "/a", "colorize_target": "/b"}
        self.jobs[submission] = {
            "type": "SUBMISSION", "submission_id": submission, "job_id": None, "status": status, "entrypoint": "x", "metadata": ours,
            "start_time": now - 2000, "end_time": None if status in ("PENDING", "RUNNING") else now, "message": "it\nsays",
        } | given  # fmt: skip
        self.logs[submission] = log

    def answer(self, asked: Asked) -> Answer:
        match asked.method, asked.path.strip("/").split("/"):
            case "GET", ["api", "version"]:
                told: Any = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}
            case "POST", ["api", "jobs"]:
                if self.refusals:
                    return self.refusals.pop(0)
                order = json.loads(asked.body)
                with self._lock:
                    self.add(order["submission_id"], "PENDING", metadata=order["metadata"], entrypoint=order["entrypoint"])
                told = {"job_id": order["submission_id"], "submission_id": order["submission_id"]}
            case "GET", ["api", "jobs"]:
                told = list(self.jobs.values())
            case "GET", ["api", "jobs", name, "logs"]:
                if name not in self.logs:
                    return Answer(500, b"its node is gone")
                told = {"logs": self.logs[name]}
            case "POST", ["api", "jobs", name, "stop"]:
                self.stopped.append(name)
                told = {"stopped": True}
            case _:
                return Answer(404, b"what?")
        return Answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def server() -> JobServer:
    return JobServer()


@pytest.fixture
def stub(server: JobServer) -> Iterator[Stub]:
    with answering(server.answer) as stub:
        yield stub


def model_of(name: str | None) -> str:
    if name not in (None, "photo"):
        raise ModelError(f"model {name}: no such model")
    return name or "/models/own.safetensors"


@pytest.fixture
def runs(stub: Stub, tmp_path: Path) -> ArchiveRuns:
    return connected(stub, tmp_path)


def connected(stub: Stub, root: Path, limit: int = 1) -> ArchiveRuns:
    runs = ArchiveRuns(Roots([str(root)]), limit=limit, workers=3, reserved_cpus=1, reserved_gpus=0, model_of=model_of)
    runs._client = PatientClient(stub.url)
    return runs


def start(runs: ArchiveRuns, root: Path, **given: Any) -> Started:
    return asyncio.run(runs.start(ArchiveOrder(source=f"{root}/in; touch $(x) 'y'", target=f"{root}/out", **given)))


def find(runs: ArchiveRuns, run: str) -> ArchiveRun:
    return asyncio.run(runs.find(run))


A, B, C = (f"archive-20260101T00000{number}-0000000{number}" for number in range(3))


def test_a_run_is_a_job_whose_command_means_what_it_says(server: JobServer, runs: ArchiveRuns, tmp_path: Path) -> None:
    started = start(runs, tmp_path, vividness=0.25, recolor=True)
    job = server.jobs[started.id]
    program, flag, _, *arguments = shlex.split(job["entrypoint"])
    assert (program.rpartition("/")[2].startswith("python"), flag) == (True, "-c")
    assert arguments == [
        "archive", "--json", "--vividness", "0.25", "--model", "/models/own.safetensors", "--workers", "3", "--recolor", "--",
        f"{tmp_path}/in; touch $(x) 'y'", f"{tmp_path}/out",
    ]  # fmt: skip
    assert started.status == "pending"
    told = find(runs, started.id)
    assert (told.status, told.source, told.target) == ("pending", f"{tmp_path}/in; touch $(x) 'y'", f"{tmp_path}/out")
    assert told.counts == Counts()


@pytest.mark.parametrize(
    ("status", "log", "expected", "reason"),
    [
        ("PENDING", DONE, "pending", None),
        ("RUNNING", PART, "running", None),
        ("SUCCEEDED", PART + DONE, "succeeded", None),
        ("FAILED", PART + DONE, "succeeded", None),
        ("FAILED", PART + "colorize: /b: cannot be written\n", "failed", "/b: cannot be written"),
        ("FAILED", "Traceback", "failed", "it"),
        ("STOPPED", PART + "colorize: interrupted\n", "stopped", None),
    ],
)
def test_a_run_is_told_from_its_job_and_its_output(
    server: JobServer, runs: ArchiveRuns, status: str, log: str, expected: str, reason: str | None
) -> None:
    server.add(A, status, "noise\n" + log)
    told = find(runs, A)
    assert (told.status, told.reason) == (expected, reason)
    assert told.seconds == pytest.approx(2, abs=1.5)
    if log.startswith(PART) and status != "PENDING":
        assert told.failures == [Failure(path="a.jpg", reason="is text")]
        assert told.counts.listed == 5


def test_a_run_whose_output_is_gone_is_still_told_of(server: JobServer, runs: ArchiveRuns) -> None:
    server.add(A, "FAILED")
    del server.logs[A]
    assert (find(runs, A).status, find(runs, A).reason) == ("failed", "it")


def test_a_run_that_was_told_without_its_output_is_told_anew(server: JobServer, runs: ArchiveRuns) -> None:
    server.add(A, "FAILED")
    del server.logs[A]
    assert find(runs, A).status == "failed"
    server.logs[A] = PART + DONE
    assert (find(runs, A).status, find(runs, A).counts.listed) == ("succeeded", 5)


def test_threads_that_tell_of_runs_do_not_disturb_one_another(
    server: JobServer, runs: ArchiveRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(A, "SUCCEEDED", DONE)
    server.add(B, "SUCCEEDED", DONE)
    monkeypatch.setattr("colorize.serve.bulk.LISTED_RUNS", 0.5)  # of which twice as many are kept
    (job, other), is_inside = [runs._job(name) for name in (A, B)], threading.Event()

    class Watched(dict[str, ArchiveRun]):
        """What is over, which another thread would like to change while this one makes room."""

        def __delitem__(self, name: str) -> None:
            is_inside.set()
            assert runs._keeping.locked()
            super().__delitem__(name)

    runs._over = Watched()
    for one in (job, other):
        runs._told(one)
    assert is_inside.is_set()
    assert list(runs._over) == [B]


def test_a_run_that_may_have_begun_is_no_503(runs: ArchiveRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    submit = runs._submit

    def slow(*arguments: Any) -> None:
        assert may_go_on.wait(60)
        submit(*arguments)

    async def late() -> Refusal:
        try:
            with pytest.raises(Refusal, match="may have begun") as refused:
                await runs.start(ArchiveOrder(source=f"{tmp_path}/in", target=f"{tmp_path}/out"))
        finally:
            may_go_on.set()
        return refused.value

    monkeypatch.setattr(runs, "_submit", slow)
    monkeypatch.setattr("colorize.serve.bulk.PATIENCE", 0.5)
    refused = asyncio.run(late())
    runs._threads.shutdown()  # which waits for the thread
    assert (refused.status, refused.headers) == (504, None)


def test_a_job_server_that_hangs_holds_up_nothing_else(runs: ArchiveRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(runs, "_list", lambda: answers.wait(30))
    monkeypatch.setattr("colorize.serve.bulk.PATIENCE", 0.5)

    async def asked() -> list[Any]:
        asking = [asyncio.create_task(runs.runs()) for _ in range(40)]  # more than asyncio has threads
        try:
            await asyncio.sleep(0.1)
            await asyncio.wait_for(asyncio.to_thread(int), 10)  # as the part of an upload that is to be written
            return await asyncio.gather(*asking, return_exceptions=True)
        finally:
            answers.set()

    assert {one.status for one in asyncio.run(asked())} == {503}


def test_a_thread_does_not_wait_for_ever_for_the_job_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.submit.submission.CALL_SECONDS", 0.2)
    over = threading.Event()

    def silent(_: Asked) -> Answer:
        over.wait(30)
        return Answer(500)

    with answering(silent) as stub:
        runs = ArchiveRuns(Roots([str(tmp_path)]), limit=1, workers=1, reserved_cpus=1, reserved_gpus=0, model_of=model_of)
        runs._address = lambda: stub.url  # type: ignore[method-assign]
        try:
            with pytest.raises(Refusal, match="does not answer"):
                asyncio.run(asyncio.wait_for(runs.runs(), 10))
            runs._threads.submit(int).result(10)
        finally:
            over.set()


def test_runs_are_listed_the_newest_first_without_their_failures(server: JobServer, runs: ArchiveRuns) -> None:
    server.add(B, "SUCCEEDED", PART + DONE)
    server.add(A, "RUNNING", PART)
    listed = asyncio.run(runs.runs()).archives
    assert [(one.id, one.status, one.failures) for one in listed] == [(B, "succeeded", []), (A, "running", [])]
    assert find(runs, B).failures, "which are not lost by that"


def test_as_many_runs_as_may_be(server: JobServer, stub: Stub, tmp_path: Path) -> None:
    two = connected(stub, tmp_path, limit=2)
    server.add(A, "SUCCEEDED")
    server.add(B, "RUNNING")
    started = start(two, tmp_path)
    with pytest.raises(Refusal) as refused:
        start(two, tmp_path)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "30"})
    assert "2 runs at a time" in refused.value.reason
    server.jobs[started.id]["status"] = "STOPPED"
    assert start(two, tmp_path).status == "pending"


def test_of_two_that_were_submitted_at_once_one_gives_way(server: JobServer, stub: Stub, tmp_path: Path) -> None:
    one = connected(stub, tmp_path)
    submit = one._submit

    def beside_another_replica(*arguments: Any) -> None:
        server.add(A, "RUNNING")  # whose id comes first
        submit(*arguments)

    one._submit = beside_another_replica  # type: ignore[method-assign]
    with pytest.raises(Refusal, match="1 run at a time"):
        start(one, tmp_path)
    (mine,) = set(server.jobs) - {A}
    assert server.stopped == [mine]


def test_jobs_of_others_are_neither_shown_nor_stopped(server: JobServer, runs: ArchiveRuns, tmp_path: Path) -> None:
    server.add(A, "RUNNING", metadata={})
    server.add(B, "RUNNING", metadata=None)
    server.add("raysubmit_x", "RUNNING")
    server.add(C, "RUNNING", metadata={"colorize": "archive"})
    server.jobs["driver"] = {"type": "DRIVER", "job_id": "01000000", "submission_id": None, "status": "RUNNING", "entrypoint": "x"}
    assert asyncio.run(runs.runs()).archives == []
    for name in (A, B, C, "raysubmit_x", "01000000", "driver", "../../x", "ü\n"):
        for ask in (runs.find, runs.stop):
            with pytest.raises(Refusal, match="there is no such run") as refused:
                asyncio.run(ask(name))
            assert refused.value.status == 404
    assert server.stopped == []
    assert start(runs, tmp_path).id in server.jobs, "nor do they count as runs"


def test_a_run_is_stopped_once(server: JobServer, runs: ArchiveRuns) -> None:
    server.add(A, "RUNNING", PART)
    assert asyncio.run(runs.stop(A)).status == "running", "for as long as it writes down what it has done"
    server.jobs[A]["status"] = "STOPPED"
    assert asyncio.run(runs.stop(A)).status == "stopped"
    assert server.stopped == [A]


def test_a_job_server_that_is_not_ready_yet_is_waited_for(
    server: JobServer, runs: ArchiveRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colorize.submit.submission.NOT_READY_SECONDS", 0.01)
    server.refusals = [Answer(500, b"No available agent to submit job, please try again later.")] * 2
    assert start(runs, tmp_path).id in server.jobs


def test_a_job_server_that_fails_is_a_503(server: JobServer, runs: ArchiveRuns, stub: Stub, tmp_path: Path) -> None:
    server.refusals = [Answer(500, b"Traceback\nof many lines")]
    with pytest.raises(Refusal) as refused:
        start(runs, tmp_path)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "30"})
    assert "\n" not in refused.value.reason


def test_a_cluster_without_a_job_server_is_told_apart(tmp_path: Path) -> None:
    with answering(lambda _: Answer(500)) as stub:
        url = stub.url
    runs = ArchiveRuns(Roots([str(tmp_path)]), limit=1, workers=1, reserved_cpus=1, reserved_gpus=0, model_of=model_of)
    runs._address = lambda: url  # type: ignore[method-assign]
    for ask in (runs.runs(), runs.find(A)):
        with pytest.raises(Refusal, match=r"does not answer .the cluster has none: start Ray with its dashboard") as refused:
            asyncio.run(ask)
        assert refused.value.status == 503


def test_a_target_in_its_source_is_seen_where_the_root_has_a_query(server: JobServer, stub: Stub) -> None:
    runs = ArchiveRuns(
        Roots(["s3://bucket/scans?region=eu"]), limit=1, workers=1, reserved_cpus=1, reserved_gpus=0, model_of=model_of
    )  # fmt: skip
    runs._client = PatientClient(stub.url)
    for source, target in (("a", "a"), ("a", "a/b"), ("a/b", "a")):
        with pytest.raises(Refusal, match="give another target"):
            asyncio.run(runs.start(ArchiveOrder(source=f"s3://bucket/scans/{source}", target=f"s3://bucket/scans/{target}")))
    assert asyncio.run(runs.start(ArchiveOrder(source="s3://bucket/scans/a", target="s3://bucket/scans/ab"))).id in server.jobs


def test_a_model_that_is_none_and_a_target_in_the_source_start_nothing(server: JobServer, runs: ArchiveRuns, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no such model") as refused:
        start(runs, tmp_path, model="other")
    assert refused.value.status == 404
    for source, target in (("a", "a"), ("a", "a/b"), ("a/b", "a")):
        with pytest.raises(Refusal, match="give another target") as refused:
            asyncio.run(runs.start(ArchiveOrder(source=f"{tmp_path}/{source}", target=f"{tmp_path}/{target}")))
        assert refused.value.status == 422
    assert server.jobs == {}
