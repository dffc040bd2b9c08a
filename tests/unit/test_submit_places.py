"""What `colorize submit` makes of a command: its own parser's judgement, absolute paths, and which of them are read and written."""

import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from colorize.cli.main import main
from colorize.cli.places import _KINDS, COMMANDS, job_commands, parse
from colorize.errors import ConfigError, DataError

HERE = Path("/here")


def test_urls_and_names_stay_what_they_are() -> None:
    command = parse(["archive", "s3://in", "s3://out?region=eu", "--model", "photo", "--palette", "faded"], folder=HERE)
    assert command.arguments == ("archive", "--model", "photo", "--palette", "faded", "--", "s3://in", "s3://out?region=eu")
    assert command.read == command.written == ()


def test_local_paths_become_absolute() -> None:
    command = parse(["archive", "scans", "/colour", "--model", "runs/one", "--reference", "a b.jpg", "--recolor"], folder=HERE)
    assert command.arguments == (
        "archive", "--model", "/here/runs/one", "--reference", "/here/a b.jpg", "--recolor", "--", "/here/scans", "/colour",
    )  # fmt: skip
    assert set(command.read) == {HERE / "runs/one", HERE / "a b.jpg", HERE / "scans"}
    assert command.written == (Path("/colour"),)


def test_what_stands_before_the_path_of_a_data_source_stays() -> None:
    command = parse(["train", "--data", "folder:one", "--data", "parquet:s3://two", "--data", "cifar10:/three", "--run", "r"], folder=HERE)
    assert command.arguments == (
        "train", "--data", "folder:/here/one", "--data", "parquet:s3://two", "--data", "cifar10:/three", "--run", "/here/r",
    )  # fmt: skip
    assert command.read == (HERE / "one", Path("/three"))
    assert command.written == (HERE / "r",)


def test_a_name_of_the_bundled_data_is_no_path() -> None:
    assert parse(["evaluate", "cifar10", "--data", "cifar10-sample"], folder=HERE).read == ()


def test_a_file_url_is_a_local_path() -> None:
    assert parse(["evaluate", "photo", "--data", "folder:file:///photos"], folder=HERE).read == (Path("/photos"),)


def test_what_an_evaluation_leaves_is_written() -> None:
    command = parse(["evaluate", "cifar10", "--json", "a.json", "--sheet", "/b.png"], folder=HERE)
    assert command.written == (HERE / "a.json", Path("/b.png"))


def test_a_run_that_goes_on_is_read_and_written() -> None:
    command = parse(["train", "--resume", "runs/one"], folder=HERE)
    assert command.read == command.written == (HERE / "runs/one",)


@pytest.mark.parametrize("arguments", [["train"], ["finetune", "photo", "--data", "folder:x"], ["adapt", "scans"]], ids=" ".join)
def test_a_run_without_a_name_gets_its_directory_here(arguments: list[str]) -> None:
    command = parse(arguments, folder=HERE)
    assert [path.parent for path in command.written] == [HERE / "runs"]
    assert command.arguments[command.arguments.index("--run") + 1] == str(command.written[0])


def test_the_address_is_not_the_jobs() -> None:
    command = parse(["train", "--address", "auto", "--run", "/r"], folder=HERE)
    assert (command.arguments, command.address) == (("train", "--run", "/r"), "auto")


def test_parsed_again_it_is_the_same() -> None:
    command = parse(["archive", "--force", "--workers", "2", "./-scans", "./-colour"], folder=HERE)
    assert parse(command.arguments) == command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve"], "serve: cannot be a job; these can: train, finetune, adapt, evaluate, archive"),
        ([], "no command: cannot be a job"),
        (["archive", "status", "x"], "archive status: needs no cluster"),
        (
            ["evaluate", "photo", "--classifier", "s3://bucket/judge"],
            "--classifier s3://bucket/judge: must be a file or folder that every node shares, and no URL",
        ),
    ],
)
def test_what_cannot_be_a_job_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(arguments, folder=HERE)
    assert told in str(error.value)


def test_an_unknown_data_source_is_refused() -> None:
    with pytest.raises(DataError, match="'x': no such data source"):
        parse(["train", "--data", "x"], folder=HERE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--run", "runs/one"], "--run runs/one: a job needs an absolute path or a URL"),
        (["train", "--data", "cifar10-sample"], "--run: a job needs the directory of its run"),
        (["archive", "scans", "/colour"], "SOURCE scans: a job needs an absolute path or a URL"),
    ],
)
def test_in_a_job_relative_paths_are_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(arguments)
    assert told in str(error.value)


@pytest.mark.parametrize("arguments", [["train", "--dat", "x"], ["archive", "a"], ["evaluate", "photo", "--hints", "few"]], ids=" ".join)
def test_wrong_usage_is_told_as_the_command_tells_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", *arguments, "--address", "http://127.0.0.1:1"]) == 2
    assert f" submit {arguments[0]} [OPTIONS]" in capsys.readouterr().err


def test_every_parameter_with_a_path_is_known() -> None:
    """Each parameter of the type Path has its kind; the texts that can be paths are those that are named here."""
    for name in COMMANDS:
        function = inspect.unwrap(job_commands().commands[name].callback)
        hints = get_type_hints(function)
        assert set(_KINDS[name]) <= set(hints)
        paths = {key for key, hint in hints.items() if Path in (hint, *get_args(hint))}
        assert paths <= set(_KINDS[name]), f"{name}: {paths - set(_KINDS[name])}"
