"""What the commands print: names are shown as they are, whatever brackets, line breaks or words they are made of."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from colorize.cli import display
from colorize.cli.display import console, describe
from colorize.cli.evaluate import HEADINGS, check_apart, score_table
from colorize.cli.finetune import announce
from colorize.cli.main import main
from colorize.data.parts import Parts
from colorize.errors import ConfigError, DataError
from colorize.train.config import TrainConfig
from colorize.train.progress import EpochReport, StepReport


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


def test_a_long_name_costs_no_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    long = "photographs-of-landscapes-2026"
    found: Any = SimpleNamespace(model=long, metrics=scores(12.3456), baselines={}, classes={})
    console.print(score_table(found))
    told = capsys.readouterr().out
    assert "…" not in told
    assert told.count("12.3456") == 2
    assert "".join(line.split()[0] for line in told.splitlines()[1:]) == long


def test_the_epoch_under_way_is_seen_however_many_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, height=10)
    monkeypatch.setattr(display, "console", terminal)
    with display.TrainingDisplay(40) as shown:
        for number in range(1, 31):
            shown.show(
                EpochReport(
                    epoch=number, epochs=40, loss=3, ssim=0.9, psnr=21, ssim_gain=0.1, psnr_gain=0.2, pictures_per_second=5, seconds=1
                )
            )
        shown.show(StepReport(epoch=31, step=7, steps=9, loss=4.0, pictures_per_second=6.0, seconds_left=1.0))
        with terminal.capture() as on_the_way:
            shown._live.refresh()  # type: ignore[union-attr]
        with terminal.capture() as at_last:
            shown.__exit__(None, None, None)
    assert "31/40" in on_the_way.get()
    assert "24/40" in on_the_way.get()
    assert all(f"{number}/40" in at_last.get() for number in range(1, 31))


def test_an_unreadable_picture_is_named_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    unread: Any = SimpleNamespace(
        pictures=1,
        height=2,
        width=2,
        dropped_grey=0,
        unreadable=[("a [/old]\n.jpg", "is empty")],
        other_formats=0,
        other_labels="",
        outside=0,
    )
    console.print(describe(unread))
    assert capsys.readouterr().out == "1 pictures of 2×2, 1 unreadable ones left out (the first: a [/old]?.jpg: is empty)\n"


@pytest.mark.parametrize("grey", [True, False])
def test_a_held_out_part_that_is_all_grey_is_refused(grey: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """As the validation pictures of any training are: by them no model could be judged."""
    L_b1hw = np.random.default_rng(0).uniform(0, 100, (3, 1, 16, 16))
    ab_b2hw = np.random.default_rng(1).normal(0, 0 if grey else 20, (3, 2, 16, 16))
    rows: Any = SimpleNamespace(
        select_columns=lambda names: rows, iter_batches=lambda batch_size: iter([{"L": L_b1hw, "ab": ab_b2hw}]), count=lambda: 3
    )
    part: Any = SimpleNamespace(
        dataset=rows, pictures=16, height=16, width=16, dropped_grey=0, unreadable=[], other_formats=0, other_labels="", outside=0
    )
    config, parts = TrainConfig(data="folder:a", batch_size=16, workers=1, size=16), Parts(train=part, choice=part, held_out=part)
    if not grey:
        announce(config, parts)
        assert "held out    16 pictures" in capsys.readouterr().out
        return
    with pytest.raises(DataError, match=r"^folder:a: all of its 3 test pictures are grey, so no training can be judged"):
        announce(config, parts)


def test_two_results_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = str(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"there: is named twice: give --json, --sheet and --classifier a file each"):
        check_apart(there, None, tmp_path / "deep" / ".." / "there")
    check_apart(None, None, None)
    for read in (there, str(tmp_path / "deep" / ".." / "there")):
        with pytest.raises(ConfigError, match=r"there: is what is to be scored: give --json"):
            check_apart(there, None, read=(read, None))
    with pytest.raises(ConfigError, match=r"^s3://bucket/a: is what is to be scored"):
        check_apart("s3://bucket/a", read=("s3://bucket/a",))
    check_apart("s3://bucket/a", "s3://bucket/b", Path("a"))
    assert main(["evaluate", "cifar10", "--json", there, "--sheet", there]) == 1
    assert "is named twice" in capsys.readouterr().err
