"""What `colorize submit` makes of a command: its own parser's judgement, absolute paths, and which of them are read and written."""

import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from colorize.cli.main import main
from colorize.cli.places import _KINDS, COMMANDS, job_commands, parse
from colorize.errors import ColorizeError, ConfigError, DataError, StorageError
from colorize.storage.place import LocalPlace
from colorize.storage.remote import open_place

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
    command = parse(["train", "--data", "folder:one", "--data", "parquet:s3://two", "--data", "folder:/three", "--run", "r"], folder=HERE)
    assert command.arguments == (
        "train", "--data", "folder:/here/one", "--data", "parquet:s3://two", "--data", "folder:/three", "--run", "/here/r",
    )  # fmt: skip
    assert command.read == (HERE / "one", Path("/three"))
    assert command.written == (HERE / "r",)
    assert parse(["train", "--data", "cifar10:three", "--run", "r"], folder=HERE).read == (HERE / "three",)


def test_a_name_of_the_bundled_data_is_no_path() -> None:
    assert parse(["evaluate", "cifar10", "--data", "cifar10-sample"], folder=HERE).read == ()


@pytest.mark.parametrize("url", ["file:///my%20photos", "file://localhost/my photos", "file:////my photos"])
def test_a_file_url_is_the_local_path_that_it_opens(url: str) -> None:
    command = parse(["evaluate", "photo", "--data", f"folder:{url}"], folder=HERE)
    assert command.arguments == ("evaluate", "--data", "folder:/my photos", "--", "photo")
    assert command.read == (Path("/my photos"),)
    place = open_place(url)
    assert isinstance(place, LocalPlace)
    assert place.root == Path("/my photos")


@pytest.mark.parametrize("url", ["file://scans", "file://head/scans", "file:///a?b", "file:///a#b", "file:///a%00"])
def test_a_file_url_of_elsewhere_is_refused(url: str) -> None:
    for refused in (lambda: parse(["archive", url, "/colour"], folder=HERE), lambda: open_place(url)):
        with pytest.raises(StorageError, match=r"^file://.*: not the URL of a file: file:///FOLDER/NAME, absolute"):
            refused()


def test_what_an_evaluation_leaves_is_written() -> None:
    command = parse(["evaluate", "cifar10", "--json", "a.json", "--sheet", "/b.png"], folder=HERE)
    assert command.written == (HERE / "a.json", Path("/b.png"))
    command = parse(["evaluate", "cifar10", "--json", "-"], folder=HERE)
    assert command.written == ()
    assert command.arguments == ("evaluate", "--json", "-", "--", "cifar10")


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


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("archive a b --vividness 7", "vividness 7.0: must lie in 0…1"),
        ("archive a b --workers 0", "workers 0: must be 1 or more"),
        ("archive a b --format gif", "format gif: must be one of "),
        ("archive a b --palette faded --reference c.jpg", "palette and reference: both say"),
        ("archive a ./a/../a", "/here/a/../a: is the source itself"),
        ("archive a /here/a/b", "/here/a/b: lies inside the source /here/a"),
        ("archive s3://a/b s3://a", "s3://a/b: lies inside the target s3://a"),
        ("train --epochs 0", "epochs 0: must be above 0"),
        ("train --workers 3-2", "min_workers 3: must lie in 1…2"),
        ("train --data folder:a --data folder:a/b", "--data folder:/here/a/b: lies within folder:/here/a"),
        ("train --resume r --epochs 3", "--resume /here/r: a run goes on with its own settings"),
        ("finetune photo", "finetune takes a MODEL and --data"),
        ("finetune photo --data folder:a --size 50", "size 50: must be a multiple of 32"),
        ("finetune gone.safetensors --data folder:a --limit 0", "limit 0: must be 1 or more"),
        ("finetune photo --data cifar10 --size 64", "--size 64: the pictures of cifar10 are 32×32"),
        ("finetune --resume r --workers 0", "--resume /here/r: a run goes on with its own model"),
        ("adapt", "adapt takes an ARCHIVE"),
        ("adapt a --seed -1", "seed -1: must lie in 0…"),
        ("adapt .", "/here/runs/"),
        ("adapt --resume r --gpu", "--resume /here/r: a run goes on with its own model"),
        ("evaluate photo --vividness -1", "vividness -1.0: must lie in 0…1"),
        ("evaluate photo --hints 0", "hints 0: must lie in 1…"),
        ("evaluate photo --limit 0", "limit 0: must be 1 or more"),
        ("evaluate photo --classifier c", "--classifier /here/c: is only used with --recognition"),
    ],
)
def test_a_value_that_the_command_would_refuse_is_refused(command: str, told: str) -> None:
    with pytest.raises(ColorizeError) as error:
        parse(command.split(), folder=HERE)
    assert str(error.value).startswith(told)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    for arguments, folder in ((["archive", "scans\udcff", "/colour"], HERE), (["archive", "scans", "/colour"], Path("/a\udcff"))):
        with pytest.raises(ConfigError, match=r"\?: is not UTF-8, and a job is given its command as text"):
            parse(arguments, folder=folder)


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
