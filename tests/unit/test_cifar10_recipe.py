"""The cifar10 model's recipe: one that was interrupted after its training goes on with the pruning, on the data of its run."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from colorize.errors import DataError
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from jobs.recipes import cifar10
from tests.models import small_model


@pytest.mark.parametrize("is_scored", [True, False])
def test_a_trained_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_scored: bool) -> None:
    run, model, called = RunDirectory(tmp_path / "run"), small_model(), list[Any]()
    run.create(TrainConfig(data="cifar10:mine.tar.gz"))
    run.save_model(dataclasses.replace(model, card=dataclasses.replace(model.card, metrics={"metrics": {}} if is_scored else {})))

    def load(data: str, **others: Any) -> None:
        raise DataError(data)

    monkeypatch.setattr(cifar10, "colorize", lambda arguments: called.append(arguments))
    monkeypatch.setattr(cifar10.cluster, "connect", nullcontext)
    monkeypatch.setattr(cifar10, "load_dataset", load)
    with pytest.raises(DataError, match=r"^cifar10:mine\.tar\.gz$"):
        cifar10.main(run=tmp_path / "run", data="cifar10", workers=2, resume=True)
    assert called == ([] if is_scored else [["train", "--resume", str(tmp_path / "run")]])
