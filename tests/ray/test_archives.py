"""Bulk runs that clients start over HTTP: real Ray jobs, watched, cancelled, refused, and told of by a service that was started anew."""

import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from colorize import Client, RemoteError
from colorize.cli.main import main
from colorize.client.answers import RunStatus
from colorize.cluster import ClusterInfo
from colorize.imaging.picture import read_picture
from tests.models import small_model
from tests.pictures import encoded, grey_scene
from tests.ray.test_serve import free_port

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    import ray
    from ray.job_submission import JobSubmissionClient

    from colorize.serve.config import ServeConfig
    from colorize.serve.run import running

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

MANY = 4000
"""Pictures of a run that lasts until something is done about it."""


class Restartable:
    """A service on a Ray that stays."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._stack = ExitStack()
        self.url = ""

    def start(self) -> None:
        self.url = self._stack.enter_context(running(self._config, port=free_port())).url

    def stop(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two sources: a small one, in which a file is no picture, and a large one; beside it, something else."""
    top = tmp_path_factory.mktemp("places").resolve()
    small, large = top / "root" / "scans", top / "root" / "many"
    (small / "1936").mkdir(parents=True)
    large.mkdir()
    for name in ("a.jpg", "1936/b.jpg", "1936/ü c.jpg"):
        (small / name).write_bytes(encoded(grey_scene(), "JPEG"))
    (small / "letter.jpg").write_bytes(b"no picture\n" * 20)
    (small / "notes.txt").write_text("no picture, by its name")
    one = large / "0.jpg"
    one.write_bytes(encoded(grey_scene(600, 800), "JPEG", quality=30))
    for number in range(1, MANY):
        os.link(one, large / f"{number}.jpg")
    shutil.copytree(small, top / "elsewhere")
    return top


@pytest.fixture(scope="module")
def service(ray_cluster: ClusterInfo, places: Path) -> Iterator[Restartable]:
    model = places / "small.safetensors"
    small_model(seed=3, working_size=32).save(model)
    service = Restartable(ServeConfig(model=str(model), archive_roots=(str(places / "root"),)))
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(service: Restartable) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client
        for run in client.archives():  # of a test that failed
            if not run.is_over:
                client.archive(run.id).cancel()
                client.archive(run.id).wait()


def under_way(client: Client, run: str) -> RunStatus:
    """The run once its first pictures are coloured."""
    deadline = time.monotonic() + 400
    while not (status := client.archive(run).status()).counts["coloured"]:
        assert not status.is_over, status
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    return status


@pytest.mark.slow
def test_a_run_from_its_start_to_its_end(client: Client, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = places / "root" / "scans", places / "root" / "new" / "colour"
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    run = client.submit_archive(str(source), str(target), vividness=0.25)
    assert run.status().status in ("pending", "running")
    seen: list[RunStatus] = []
    last = run.wait(timeout=600, on_status=seen.append)
    assert last.status == "succeeded", last.reason
    assert last.counts == {"coloured": 3, "skipped": 1, "failed": 1, "listed": 5}
    assert last.failures == (("letter.jpg", "is text, not a picture"),)
    assert (last.source, last.target, last.seconds > 0) == (str(source), str(target), True)
    assert {one.id for one in seen} == {run.id}
    for name in ("a.jpg", "1936/b.jpg", "1936/ü c.jpg"):
        assert read_picture((target / name).read_bytes()).pixels.shape == (48, 64, 3)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before

    listed = {one.id: one for one in client.archives()}
    assert (listed[run.id].status, listed[run.id].counts, listed[run.id].failures) == ("succeeded", last.counts, ())
    url = ["--server", client._connection.server]
    assert main(["remote", "status", run.id, *url]) == 0
    told = capsys.readouterr()
    assert f"run {run.id} succeeded: 3 coloured, 1 failed, 1 skipped" in told.out
    assert told.err == "colorize: letter.jpg: is text, not a picture\n"
    assert main(["remote", "archive", str(source), str(target), *url]) == 1, "a file failed, again"
    assert "succeeded: 3 coloured, 1 failed, 1 skipped" in capsys.readouterr().out


def test_what_is_refused(client: Client, places: Path) -> None:
    root = places / "root"
    for source, target, model, status, reason in (
        (places / "elsewhere", root / "t", None, 403, "elsewhere: lies in none of the places"),
        (root / "scans", places / "t", None, 403, "t: lies in none of the places"),
        (root / ".." / "elsewhere", root / "t", None, 403, "'..' in it is not the name of a folder"),
        (root / "scans", root / "scans", None, 422, "is the source"),
        (root, root / "t", None, 422, "lies inside it"),
        (root / "scans", root / "t", "no-such", 404, "no-such: no such model"),
        (root / "scans", root / "t", "/etc/passwd", 404, "no such model"),
    ):
        with pytest.raises(RemoteError, match=reason) as raised:
            client.submit_archive(str(source), str(target), **({} if model is None else {"model": model}))
        assert raised.value.status == status
    with pytest.raises(RemoteError, match="vividness '2'") as raised:
        client.submit_archive(str(root / "scans"), str(root / "t"), vividness=2)
    assert raised.value.status == 422
    assert not (root / "t").exists()
    assert not (places / "t").exists()


def test_a_run_that_cannot_start_says_why(client: Client, places: Path) -> None:
    last = client.submit_archive(str(places / "root" / "none"), str(places / "root" / "t")).wait(timeout=600)
    assert (last.status, last.counts["listed"]) == ("failed", 0)
    assert last.reason is not None
    assert last.reason.endswith("/root/none: there is no such folder")


def test_jobs_of_others_are_neither_shown_nor_stopped(client: Client) -> None:
    gcs = ray.get_runtime_context().gcs_address
    jobs = JobSubmissionClient(gcs)
    theirs = jobs.submit_job(
        entrypoint=f"{sys.executable} -c 'import time; time.sleep(600)'", submission_id="archive-20260101T000000-0000abcd"
    )
    try:
        assert theirs not in [run.id for run in client.archives()]
        for name in (theirs, "raysubmit_x", "01000000", "archive-20260101T000000-ffffffff", "ü"):
            for ask in (client.archive(name).status, client.archive(name).cancel):
                with pytest.raises(RemoteError, match="there is no such run") as raised:
                    ask()
                assert raised.value.status == 404
        assert not jobs.get_job_status(theirs).is_terminal()
    finally:
        jobs.stop_job(theirs)


@pytest.mark.slow
def test_a_run_outlives_the_service_and_is_cancelled(service: Restartable, places: Path) -> None:
    source, target = str(places / "root" / "many"), places / "root" / "many in colour"
    with Client(service.url, attempts=1) as client:
        run = client.submit_archive(source, str(target)).id
        before = under_way(client, run)
        with pytest.raises(RemoteError, match="1 run at a time") as raised:
            client.submit_archive(str(places / "root" / "scans"), str(places / "root" / "t"))
        assert raised.value.status == 429
    service.stop()
    service.start()
    with Client(service.url) as client:
        after = client.archive(run).status()
        assert (after.status, after.source, after.target) == ("running", source, str(target))
        assert after.counts["listed"] == before.counts["listed"] == MANY
        assert after.counts["coloured"] >= before.counts["coloured"]
        client.archive(run).cancel()
        last = client.archive(run).wait(timeout=300)
        assert last.status == "stopped"
        assert 0 < last.counts["coloured"] < MANY
        client.archive(run).cancel()
        assert client.archive(run).status().status == "stopped", "what is over stays as it is"
    assert (target / "_colorize" / "manifest" / "current.parquet").is_file(), "it had the time to write down what it did"
    assert not list((target / "_colorize").glob("runs/*"))
