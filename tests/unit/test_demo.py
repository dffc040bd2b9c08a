"""The demo's folder, which may only be cleared of what a demo made, and the commands that it names."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colorize.demo.run import ARCHIVE, MARK, MARKED, REPORT, RUN, make_room, next_commands
from colorize.errors import RunError

ROOT = Path(__file__).parents[2]


def test_an_earlier_demo_is_replaced_and_what_a_user_put_beside_it_stays(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "demo"
    make_room(output)
    assert (output / MARK).read_text() == MARKED
    for folder in (RUN, ARCHIVE):
        (output / folder / "deep").mkdir(parents=True)
        (output / folder / "deep" / "file").write_text("made")
    (output / REPORT).write_text("made")
    (output / "photos").mkdir()
    (output / "photos" / "mine.jpg").write_text("mine")
    make_room(output)
    assert sorted(path.name for path in output.iterdir()) == [MARK, "photos"]
    assert (output / "photos" / "mine.jpg").read_text() == "mine"


@pytest.mark.parametrize("mark", [None, "", '{"made_by": "another demo"}', json.dumps(["colorize demo"]), "colorize demo"])
def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path, mark: str | None) -> None:
    (tmp_path / RUN).mkdir()
    (tmp_path / REPORT).write_text("mine")
    if mark is not None:
        (tmp_path / MARK).write_text(mark)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError, match=rf"^{tmp_path}: is there already, and no demo made it"):
        make_room(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_is_refused_and_followed_nowhere(tmp_path: Path) -> None:
    make_room(tmp_path / "demo")
    (tmp_path / "link").symlink_to("demo")
    with pytest.raises(RunError, match=r"link: is a symbolic link; name a folder with --output$"):
        make_room(tmp_path / "link")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jpg").write_text("mine")
    (tmp_path / "demo" / RUN).symlink_to(tmp_path / "mine")
    make_room(tmp_path / "demo")
    assert (tmp_path / "mine" / "a.jpg").read_text() == "mine"
    assert not (tmp_path / "demo" / RUN).is_symlink()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/demo: cannot be made \(Not a directory\)$"):
        make_room(tmp_path / "file" / "demo")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_clean_leaves_what_people_put_beside_what_was_made(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    mine = [tmp_path / "demo" / "mine.jpg", tmp_path / "runs" / "mine" / "model.safetensors"]
    for file in [*mine, tmp_path / ".venv" / "installed", tmp_path / ".mypy_cache" / "made"]:
        file.parent.mkdir(parents=True)
        file.write_text("")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [tmp_path / "Makefile", *mine]


def test_the_next_commands_are_found_by_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their name where that is on the path, else by the path that this program was started by."""
    program = tmp_path / "my env" / "bin" / "colorize"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all(command.startswith(f"'{program}' ") for command, _ in next_commands(Path("demo")))
    monkeypatch.setenv("PATH", str(program.parent))
    assert all(command.startswith("colorize ") for command, _ in next_commands(Path("demo")))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert all(command.startswith("colorize ") for command, _ in next_commands(Path("demo")))
