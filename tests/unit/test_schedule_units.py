"""The systemd units and crontab lines start commands that there are, at times that there are."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import typer

from colorize.cli.main import app
from colorize.schedule.cron import Cron
from tests.processes import PROGRAM

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "cluster" / "systemd").iterdir())
INSTALLED = "/opt/colorize/bin/colorize"
ENVIRONMENT = {"${SOURCE}": ["/mnt/scans"], "${TARGET}": ["/mnt/colour"], "$OPTIONS": ["--vividness", "0.5"]}


def read(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(unit.read_text())
    return parser


def check_program(words: list[str]) -> None:
    """That the command line takes these words."""
    group = typer.main.get_command(app)
    while hasattr(group, "commands"):
        name, *words = words
        group = group.commands[name]
    group.make_context("colorize", words)


def test_there_are_the_scheduler_and_the_timer() -> None:
    assert [unit.name for unit in UNITS] == ["colorize-archive@.service", "colorize-archive@.timer", "colorize-schedule.service"]


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_a_service_starts_a_command_that_there_is_without_rights(unit: Path) -> None:
    service = read(unit)["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program == INSTALLED
    check_program([part for word in words for part in ENVIRONMENT.get(word, [word])])
    assert service["User"] == "colorize"
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("colorize", "0700")  # useradd makes the user no home
    assert (service["NoNewPrivileges"], service["CapabilityBoundingSet"]) == ("yes", "")
    assert service["ProtectSystem"] in ("strict", "full")


def test_the_timer_makes_up_for_a_night_that_it_missed() -> None:
    timer = read(ROOT / "cluster/systemd/colorize-archive@.timer")["Timer"]
    assert timer["Persistent"] == "yes"
    assert re.fullmatch(r"\*-\*-\* [0-2]\d:[0-5]\d:[0-5]\d", timer["OnCalendar"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(PROGRAM)))
    scans = tmp_path / "colorize-archive@scans.service"
    shutil.copy(tmp_path / "colorize-archive@.service", scans)
    checked = [tmp_path / "colorize-schedule.service", scans, tmp_path / "colorize-archive@.timer"]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *checked], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_crontab_lines_are_what_cron_and_the_program_take() -> None:
    (block,) = re.findall(r"^```crontab\n(.*?)^```$", (ROOT / "docs" / "schedules.md").read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        *when, command = line.split(maxsplit=5)
        Cron(line=" ".join(when), zone=ZoneInfo("UTC"))
        program, *words = shlex.split(command)
        assert program == INSTALLED
        check_program(words)
        assert "%" not in command, "cron ends the line there"
