"""`colorize archive` under fire: whatever is killed, full, read-only or gone, the same command again makes the archive whole.

Whole: every input has exactly one row in the manifest and exactly one output, byte for byte that of a run that nothing disturbed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.archives import PATIENCE, check_whole, colored_in_one_block, make_scans, outputs, wait_for
from tests.processes import PROGRAM, environment, marked

pytestmark = pytest.mark.e2e

PICTURES = 120


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scans(tmp_path_factory.mktemp("scans"), PICTURES)


@pytest.fixture(scope="module")
def undisturbed(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return colored_in_one_block(scans, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def mark() -> Iterator[str]:
    """The mark that every process of the run carries; afterwards none of them may be left."""
    value = uuid.uuid4().hex
    yield value
    left = remaining(value)
    for pid in marked(value):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == {}


AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own, which write nothing to a target: on a busy machine they were seen two minutes after their driver had been killed."""


def remaining(mark: str, seconds: float = 120) -> dict[int, str]:
    """The run's processes that are left after a while, but for Ray's agents: Ray's own end by themselves when their driver was killed."""
    deadline = time.monotonic() + seconds
    while (left := _named(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _named(mark: str) -> dict[int, str]:
    commands = {}
    for pid in marked(mark):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
            if not command.startswith(AGENTS):
                commands[pid] = command
    return commands


def start(source: Path, target: Path, mark: str, *options: str, **popen: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, "archive", str(source), str(target), *options],
        env=environment(mark), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **popen,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    printed, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, printed, errors


def worker_of(mark: str) -> int:
    """A worker process of the run that colours pictures."""
    for pid in marked(mark):
        with contextlib.suppress(OSError):
            if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    pytest.fail("there is no worker")


@pytest.mark.parametrize(
    "moment", [pytest.param(1, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.slow), pytest.param(80, marks=pytest.mark.slow)]
)
def test_a_killed_driver(scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str, moment: int) -> None:
    target = tmp_path / "out"
    process = start(scans, target, mark)
    wait_for(process, target, moment)
    process.kill()
    end(process)
    assert remaining(mark) == {}
    left = outputs(target)
    assert 0 < len(left) < PICTURES
    assert left.items() <= undisturbed.items()
    code, printed, errors = end(start(scans, target, mark))
    assert (code, errors) == (0, "")
    assert "coloured already" in printed
    check_whole(target, undisturbed)


@pytest.mark.slow
def test_killed_again_and_again(scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str) -> None:
    target = tmp_path / "out"
    for moment in (10, 30, 55, 90):
        process = start(scans, target, mark)
        wait_for(process, target, moment)
        os.killpg(process.pid, signal.SIGKILL)
        end(process)
        for pid in marked(mark):  # at once, and not as Ray would end them
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert remaining(mark) == {}
    assert end(start(scans, target, mark))[0] == 0
    check_whole(target, undisturbed)


@pytest.mark.slow
def test_killed_workers(scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str) -> None:
    target = tmp_path / "out"
    process = start(scans, target, mark)
    for moment in (5, 60):
        wait_for(process, target, moment)
        os.kill(worker_of(mark), signal.SIGKILL)
    assert end(process)[0] == 0
    check_whole(target, undisturbed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray's Cluster leaves its log files open
def test_a_killed_node(scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(mark).items():
        monkeypatch.setenv(name, value)
    target = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        process = start(scans, target, mark, "--address", cluster.address)
        wait_for(process, target, 20)
        cluster.remove_node(node, allow_graceful=False)
        code, printed, errors = end(process)
    finally:
        cluster.shutdown()
    assert (code, errors) == (0, ""), printed
    check_whole(target, undisturbed)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A small file system in memory; the test is skipped where that is not allowed."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"cannot mount a file system here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that turns read-only under whoever has files open in it, as a disk with errors does: another mount of it lies above."""
    above = folder.with_name("above")
    above.mkdir()
    subprocess.run(["mount", "--bind", folder, above], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", above], check=True)  # elsewhere first: here it would be busy
    subprocess.run(["mount", "--bind", above, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        subprocess.run(["umount", "--lazy", above], check=True)


@pytest.mark.slow
def test_a_full_disk(scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str) -> None:
    target = tmp_path / "out"
    with mounted(target, "3m"):
        code, _, errors = end(start(scans, target, mark))
        assert code == 1
        assert "No space left on device" in errors
        assert errors.count("\n") == 1
        assert "the same command again" in errors
        left = outputs(target)
        assert 0 < len(left) < PICTURES
        assert left.items() <= undisturbed.items()
        subprocess.run(["mount", "-o", "remount,size=100m", target], check=True)
        assert end(start(scans, target, mark))[0] == 0
        check_whole(target, undisturbed)


@pytest.mark.slow
def test_a_target_that_turns_read_only(scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str) -> None:
    target = tmp_path / "out"
    with mounted(target, "100m"):
        process = start(scans, target, mark)
        wait_for(process, target, 10)
        with read_only(target):
            code, _, errors = end(process)
        assert code == 1
        assert "Read-only file system" in errors
        assert errors.count("\n") == 1
        assert end(start(scans, target, mark))[0] == 0
        check_whole(target, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("vanish", [lambda source: source.rename(source.with_name("elsewhere")), lambda source: shutil.rmtree(source)])
def test_a_source_that_vanishes(
    scans: Path, undisturbed: dict[str, str], tmp_path: Path, mark: str, vanish: Callable[[Path], object]
) -> None:
    source, target = shutil.copytree(scans, tmp_path / "in"), tmp_path / "out"
    process = start(source, target, mark)
    wait_for(process, target, 10)
    vanish(source)
    code, _, errors = end(process)
    assert code == 1
    assert errors.startswith(f"colorize: {source}: the source has vanished; ")
    assert errors.count("\n") == 1
    code, _, errors = end(start(source, target, mark))
    assert (code, errors) == (1, f"colorize: {source}: there is no such folder\n")
    shutil.copytree(scans, source)
    assert end(start(source, target, mark))[0] == 0
    check_whole(target, undisturbed)
