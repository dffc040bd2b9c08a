"""`colorize serve` before Ray starts and once it has: what is refused, and when the service counts as ready."""

import warnings

import pytest

from colorize.cli.main import main
from tests.services import Answer, answering

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from colorize.serve.run import _wait_until_routed


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


@pytest.mark.parametrize("answer", [Answer(200), Answer(401), Answer(403)], ids=lambda answer: str(answer.status))
def test_the_application_s_first_answer_ends_the_wait_and_none_of_the_proxy_s(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.serve.run.START_SECONDS", 60.0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which is for other machines
    left = [Answer(0), Answer(404), Answer(503), answer]
    with answering(lambda _: left.pop(0)) as stub:
        _wait_until_routed(stub.url)
    assert [asked.path for asked in stub.asked] == ["/healthz"] * 4
