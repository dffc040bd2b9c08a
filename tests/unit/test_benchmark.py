"""The benchmarks' command line: what is wrong is said in one line, and before anything is measured."""

import sys
from pathlib import Path
from typing import Any

import pytest

from colorize import cluster
from colorize.errors import ClusterError
from jobs import benchmark


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """What it exits with, when no cluster answers."""

    def refuse(address: str | None) -> None:
        raise ClusterError(f"no Ray answers at {address}")

    monkeypatch.setattr(cluster, "connect", refuse)
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as end:
        benchmark.main()
    return end.value.code


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "lab", "--address", "foo:1") == "colorize: no Ray answers at foo:1"


def test_a_file_that_cannot_be_written_is_told_before_it_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for path, told in (("none/a.json", "its folder does not exist"), ("file/a.json", "its folder does not exist"), ("", "is a folder")):
        assert run(monkeypatch, "lab", "--json", str(tmp_path / path)) == 2
        assert f"--json: {tmp_path / path}: {told}" in capsys.readouterr().err
    assert run(monkeypatch, "lab", "--json", str(tmp_path / "a.json")) == "colorize: no Ray answers at None"
