"""`colorize remote …` against a real `colorize serve`, both as their users start them: pictures, models, a bulk run, and a clean end."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorize.imaging.formats import open_scan
from colorize.imaging.verify import verify
from tests.e2e.test_serve_command import SECONDS, Program, free_port
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM, environment, left_behind

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a few pictures, and one with so many that their run does not end by itself."""
    root = tmp_path_factory.mktemp("root").resolve()
    (root / "scans").mkdir()
    (root / "many").mkdir()
    (root / "scans" / "a.jpg").write_bytes(encoded(grey_scene(), "JPEG"))
    (root / "scans" / "b.png").write_bytes(encoded(grey_scene(), "PNG"))
    first = root / "many" / "0.jpg"
    first.write_bytes(encoded(grey_scene(600, 800), "JPEG", quality=30))
    for number in range(1, 4000):
        os.link(first, root / "many" / f"{number}.jpg")
    return root


@pytest.fixture
def program(root: Path) -> Iterator[Program]:
    program = Program("--port", str(free_port()), "--archive-root", str(root))
    try:
        yield program
    finally:
        program.close()


@pytest.mark.slow
def test_everything_that_a_remote_user_does(program: Program, root: Path, tmp_path: Path) -> None:
    url = program.line_with("Ready: http://127.0.0.1:").split()[1]

    def remote(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "remote", *arguments, "--server", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment("-"))

    scans, output = root / "scans", tmp_path / "colour"
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    done = remote("picture", str(scans / "a.jpg"), str(scans / "b.png"), str(tmp_path / "bad.jpg"), "-o", str(output), "--vividness", "0.5")
    assert (done.returncode, [line.split("  ")[0] for line in done.stdout.splitlines()]) == (1, [f"{output}/a.jpg", f"{output}/b.png"])
    assert done.stderr.startswith(f"colorize: {tmp_path / 'bad.jpg'}: is")
    assert done.stderr.count("\n") == 1
    for name in ("a.jpg", "b.png"):
        assert verify(open_scan(scans / name), open_scan(output / name)).is_faithful

    done = remote("picture", str(scans / "a.jpg"), "-o", str(output / "more"), "--candidates", "2", "--confidence", "--format", "png")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (output / "more").iterdir()) == ["a-2.jpg.png", "a-confidence.png", "a.jpg.png"]

    done = remote("models")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the default, in memory" in next(line for line in done.stdout.splitlines() if line.startswith("photo  "))

    done = remote("archive", str(scans), str(root / "scans in colour"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "succeeded: 2 coloured, 0 failed, 0 skipped" in done.stdout
    assert verify(open_scan(scans / "a.jpg"), open_scan(root / "scans in colour" / "a.jpg")).is_faithful
    done = remote("archive", str(tmp_path), str(root / "x"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"colorize: {url}: {tmp_path}: lies in none of the places that the operator of this service allows\n"

    run = remote("archive", str(root / "many"), str(root / "many in colour"), "--detach").stdout.strip()
    deadline = time.monotonic() + SECONDS
    while "running: 0 coloured" in (told := remote("status", run).stdout) or "pending" in told:
        assert time.monotonic() < deadline, told
    assert "running" in told
    assert remote("status").stdout.startswith(f"{run}  running  ")

    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(timeout=SECONDS) == 0
    assert left_behind(program.mark) == [], "the run, too, ends with a Ray that is the service's own"
    assert (root / "many in colour" / "0.jpg").is_file()
    done = remote("status", run)
    assert (done.returncode, done.stderr.startswith(f"colorize: {url}: no answer (")) == (1, True)
