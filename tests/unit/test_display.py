"""What the commands print: names are shown as they are, whatever brackets, line breaks or words they are made of."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colorize.cli.display import console, describe
from colorize.cli.evaluate import HEADINGS, check_apart, score_table
from colorize.cli.main import main
from colorize.errors import ConfigError


def scores(value: float) -> dict[str, float]:
    return dict.fromkeys(HEADINGS, value)


def test_a_row_for_each_name_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    found: Any = SimpleNamespace(
        model="grey",
        metrics=scores(1),
        baselines={"grey": scores(2)},
        classes={"cat [tabby]": scores(3), "[/x]": scores(4), "a\nb": scores(5)},
    )
    console.print(score_table(found))
    rows = [line.rsplit(maxsplit=len(HEADINGS))[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(name.strip(), float(value)) for name, value in rows] == [
        ("grey", 1), ("grey", 2), ("cat [tabby]", 3), ("[/x]", 4), ("a?b", 5),
    ]  # fmt: skip


def test_an_unreadable_picture_is_named_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    unread: Any = SimpleNamespace(
        pictures=1, height=2, width=2, dropped_grey=0, unreadable=[("a [/old]\n.jpg", "is empty")], other_formats=0, outside=0
    )
    console.print(describe(unread))
    assert capsys.readouterr().out == "1 pictures of 2×2, 1 unreadable ones left out (the first: a [/old]?.jpg: is empty)\n"


def test_two_results_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = str(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"there: is named twice: give --json, --sheet and --classifier a file each"):
        check_apart(there, None, tmp_path / "deep" / ".." / "there")
    check_apart(None, None, None)
    check_apart("s3://bucket/a", "s3://bucket/b", Path("a"))
    assert main(["evaluate", "cifar10", "--json", there, "--sheet", there]) == 1
    assert "is named twice" in capsys.readouterr().err
