"""The recipe that takes the photo model to a domain: its crops do not overlap, and a tiny run of it is better on the held-out ones."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import typer

from colorize.model.colormodel import load_model
from jobs.recipes.domain import GAP, PICTURES, cut, halves, main, picture
from tests.processes import environment, left_behind

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.mark.parametrize("domain", PICTURES)
def test_no_held_out_pixel_is_in_a_training_crop(domain: str) -> None:
    rgb_hwc = picture(domain)
    assert min(rgb_hwc.shape[:2]) >= 512
    numbered_hw = np.arange(rgb_hwc.shape[0] * rgb_hwc.shape[1]).reshape(rgb_hwc.shape[:2])
    columns = [
        {int(number) % rgb_hwc.shape[1] for crop in cut(of, 128, 48).values() for number in crop[0]} for of in halves(numbered_hw, 128)
    ]
    train, held_out = columns
    assert train
    assert max(train) + GAP < min(held_out)
    assert max(held_out) - min(held_out) >= 127


def test_crops_that_are_there_are_not_mixed_with_others(tmp_path: Path) -> None:
    (tmp_path / "run-crops").mkdir()
    with pytest.raises(typer.BadParameter, match="run-crops: is there already"):
        main("hubble", run=tmp_path / "run", size=256, stride=256)
    assert list((tmp_path / "run-crops").iterdir()) == []


@pytest.mark.slow
def test_a_tiny_run_is_better_than_before_on_held_out_crops(tmp_path: Path) -> None:
    mark, run = uuid.uuid4().hex, tmp_path / "histology"
    command = [sys.executable, "-m", "jobs.recipes.domain", "histology", "--run", str(run), "--size", "64", "--epochs", "8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(mark) | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = json.loads((run / "finetune.json").read_text())
    assert told["psnr_gain"] > 2
    assert told["after"]["ciede2000"] < told["before"]["ciede2000"]
    assert load_model(run).card.training["base"]["name"] == "photo"
    assert left_behind(mark) == []
