"""`colorize archive` as its users run it: a process, its exit code, its lines, and Ctrl-C."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from colorize.cli.main import main
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM, environment, left_behind

pytestmark = pytest.mark.e2e


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def mark() -> Iterator[str]:
    """The mark that every process of the run carries; afterwards none of them may be left."""
    value = uuid.uuid4().hex
    yield value
    left = left_behind(value)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def colored(target: Path) -> list[Path]:
    return [path for path in target.rglob("*") if path.is_file() and "_colorize" not in path.parts]


def statuses(target: Path) -> dict[str, str]:
    table = pq.read_table(target / "_colorize" / "manifest", columns=["path", "status"])
    return dict(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "arguments",
    [
        ["picture.jpg", "out"], ["gone", "out"], ["in", "in/out"], ["in", "out", "--vividness", "2"],
        ["in", "out", "--force", "--retry-failed"],
        ["xyz://bucket/in", "out"], ["status", "out"], ["status", "in", "--force"],
    ],
)  # fmt: skip
def test_a_wrong_command_is_one_line_without_ray(
    tmp_path: Path, arguments: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"in/a.jpg": encoded(grey_scene(), "JPEG"), "picture.jpg": b"x"})
    monkeypatch.chdir(tmp_path)
    code = main(["archive", *arguments])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("colorize: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not ray.is_initialized()


@pytest.mark.parametrize("option", ["--force", "--format=jpeg", "--workers=0", "--vividness=0.5", "--model=photo"])
def test_status_takes_no_other_options(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "status", "out", "--json", option]) == 1
    assert capfd.readouterr().err.startswith("colorize: archive status takes a TARGET and --json, and no other options; ")


@pytest.mark.slow
def test_what_failed_is_listed_and_the_exit_code_says_so(tmp_path: Path, mark: str) -> None:
    bad = {f"bad{number:02}.jpg": b"hello\n" for number in range(22)}
    put(tmp_path / "in", {"deep/a.jpg": encoded(grey_scene(), "JPEG"), "notes.txt": b"x"} | bad)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "archive", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment(mark), capture_output=True, text=True, check=False)

    done = run("in", "out")
    assert done.returncode == 1
    assert [path.relative_to(tmp_path / "out").as_posix() for path in colored(tmp_path / "out")] == ["deep/a.jpg"]
    errors = done.stderr.splitlines()
    assert errors[0] == "colorize: bad00.jpg: is text, not a picture"
    assert len(errors) == 21
    assert all(error.startswith("colorize: ") for error in errors)
    assert errors[20].startswith("colorize: and 2 more: status `failed` in ")
    assert "1 picture coloured, 22 failed, 1 skipped (1 not a picture by its name): 0.0 MP in" in done.stdout

    table = run("status", "out")
    assert table.returncode == 0
    assert table.stdout.startswith("out: 24 files: 22 failed, 1 coloured, 1 skipped\n")
    for told in ("is text, not a picture", "bad19.jpg", "and 2 more", "deep/a.jpg", "not a picture by its name"):
        assert told in table.stdout
    assert "bad20.jpg" not in table.stdout
    dry = run("in", "out", "--dry-run", "--force")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "23 pictures to colour (22 failed before, 1 again)" in dry.stdout
    assert "22 without a readable header; about " in dry.stdout

    for name in bad:
        (tmp_path / "in" / name).unlink()
    again = run("in", "out", "--vividness", "0.7")
    assert (again.returncode, again.stderr) == (0, "")
    assert "Ray" not in again.stdout
    assert "1 picture in the target has the colours of another model or other settings and stay" in again.stdout


def test_ctrl_c_leaves_whole_pictures_a_manifest_and_no_process(tmp_path: Path, mark: str) -> None:
    data = encoded(grey_scene(700, 900), "JPEG")
    source, target = put(tmp_path / "in", {f"{number:03}.jpg": data for number in range(200)}), tmp_path / "out"
    process = subprocess.Popen(
        [PROGRAM, "archive", str(source), str(target)],
        env=environment(mark), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and len(colored(target)) < 5:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: to the whole foreground group
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "of 200 pictures done; the same command again does the rest" in printed
    assert errors == "colorize: interrupted\n"
    assert left_behind(mark) == []

    files = colored(target)
    assert 5 <= len(files) < 200
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            assert picture.size == (900, 700)
    assert statuses(target) == {file.name: "coloured" for file in files}
    assert sorted(path.name for path in (target / "_colorize").iterdir()) == ["lock", "manifest", "report", "report.html"]
