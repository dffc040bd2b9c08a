"""`colorize serve` before Ray starts: what is refused."""

import warnings

import pytest

from colorize.cli.main import main

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    import colorize.serve.run  # noqa: F401 - before the command does


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--models", ""], "--models '': is no folder"),
        (["--models", "none"], "--models none: is no folder"),
        (["--archive-root", ""], "archive_roots: '': a place has 1 to 4,096 characters"),
        (["--archive-root", "/archive", "--archive-root", ""], "archive_roots: '': a place has 1 to 4,096 characters"),
        (["--archive-root", "/"], "archive_roots: /: would allow every file of the machine; name the folders"),
    ],
)
def test_a_folder_that_is_none_is_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *arguments]) == 1
    assert capsys.readouterr().err == f"colorize: {reason}\n"
