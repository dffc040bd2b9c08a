"""The log: JSON lines where they are asked for, each with its run; nothing on the terminal where they are not."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorize import log
from colorize.errors import ConfigError

PROGRAM = Path(sys.executable).with_name("colorize")


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    """What a test installs goes with it."""
    logger = logging.getLogger(log.ROOT)
    before = logger.handlers, logger.level
    logger.handlers = []
    yield
    logger.handlers, logger.level = before
    log.bind(stage="none")


def test_a_line_has_its_run_its_stage_and_what_was_said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(log.VARIABLE, "json")
    log.begin()
    log.bind(run="20260301T220003-ab", stage="archive")
    log.event("picture failed", level=logging.WARNING, path="é.jpg", reason="is text,\nnot a picture")
    [text] = capfd.readouterr().err.splitlines()
    line = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning", "run": "20260301T220003-ab", "stage": "archive", "message": "picture failed", "path": "é.jpg",
        "reason": "is text,\nnot a picture", "logger": "colorize",
    }  # fmt: skip


def test_a_traceback_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(log.VARIABLE, "json")
    log.begin()
    try:
        raise KeyError("inner")
    except KeyError:
        logging.getLogger("colorize.archive.painter").exception("%s: an error of this program", "a.jpg")
    [text] = capfd.readouterr().err.splitlines()
    line = json.loads(text)
    assert (line["level"], line["message"], line["logger"]) == ("error", "a.jpg: an error of this program", "colorize.archive.painter")
    assert line["error"].startswith("Traceback")
    assert line["error"].endswith("KeyError: 'inner'")


def test_without_it_a_driver_says_nothing_twice(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(log.VARIABLE, raising=False)
    log.begin()
    log.bind(run="r", stage="train")
    log.event("run begins")
    log.event("run breaks off", level=logging.ERROR)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_a_worker_names_its_run_either_way(as_json: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(log.VARIABLE, raising=False)  # the worker's environment is the cluster's
    log.begin_worker(run="run-7", stage="train", as_json=as_json)
    log.begin_worker(run="run-8", stage="train", as_json=as_json)  # the process is used again
    log.event("worker begins", rank=1)
    [text] = capfd.readouterr().err.splitlines()
    if as_json:
        line = json.loads(text)
        assert (line["run"], line["rank"]) == ("run-8", 1)
    else:
        assert re.fullmatch(r"\S+Z INFO \[train run-8\] worker begins rank=1", text)


def test_a_text_line_stays_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    log.begin_worker(run="run-7", stage="archive", as_json=False)
    log.event("picture failed", path="a b.jpg", reason='is "text",\nno picture', empty="", pages=2)
    [text] = capfd.readouterr().err.splitlines()
    assert text.partition("] ")[2] == 'picture failed path="a b.jpg" reason="is \\"text\\",?no picture" empty="" pages=2'


def test_a_value_that_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.VARIABLE, "xml")
    with pytest.raises(ConfigError, match="COLORIZE_LOG=xml: must be json or text"):
        log.begin()


def test_the_programs_errors_are_lines_as_well() -> None:
    result = subprocess.run(
        [PROGRAM, "models", "nowhere.safetensors"], capture_output=True, text=True, check=False, env=os.environ | {log.VARIABLE: "json"}
    )
    line = json.loads(result.stderr)
    assert result.returncode == 1
    assert (line["level"], line["message"].startswith("nowhere.safetensors: no such model")) == ("error", True)
