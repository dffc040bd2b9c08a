"""Checkpoints: a run that goes on from one is the run that never stopped; what is not one is refused; nothing is pickled."""

import json
import pickletools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from colorize.errors import RunError
from colorize.storage.place import LocalPlace
from colorize.train.checkpoint import COUNTERS, SUMS, TENSORS, clear, load_state, publish, reached, save_state, seal, whole
from colorize.train.config import TrainConfig
from colorize.train.learner import Learner
from tests.models import small_palette

STEPS = 6


@pytest.fixture(autouse=True, scope="module")
def _denormals() -> Iterator[None]:
    """A learner turns denormal numbers off for its thread, which is a training worker's; this one is the tests'."""
    yield
    torch.set_flush_denormal(False)


def new_learner(width: int = 8, seed: int = 0) -> Learner:
    config = TrainConfig(data="cifar10-sample", batch_size=4, width=width, depth=1, size=16, precision="fp32", hint_share=0.5, seed=seed)
    return Learner(config, small_palette(), torch.device("cpu"), STEPS)


def learn(learner: Learner, last: int) -> Learner:
    """Takes the steps up to `last`, each with the batch and the chance that belong to it."""
    while learner.step < last:
        torch.manual_seed(100 + learner.step)
        L_b1hw = torch.rand(4, 1, 20, 20) * 100
        learner.learn(L_b1hw, torch.cat([L_b1hw - 50, 30 - L_b1hw / 2], dim=1))
    return learner


def everything(learner: Learner) -> dict[str, Tensor]:
    tensors = {f"network.{name}": tensor for name, tensor in learner.network.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in learner.averaged.state_dict().items()}
    for index, state in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    return tensors


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_state(folder, learn(new_learner(), 3), {"epoch": 3, "history": [{"psnr": 20.5}]})
    return folder


def copy_of(saved: Path, folder: Path) -> Path:
    for name in (TENSORS, COUNTERS):
        (folder / name).write_bytes((saved / name).read_bytes())
    return folder


def check_refused(folder: Path, learner: Learner | None = None) -> None:
    with pytest.raises(RunError) as caught:
        load_state(folder, learner or new_learner())
    assert str(caught.value).startswith(f"{folder}: not a whole checkpoint of this run (")
    assert "\n" not in str(caught.value)


def test_going_on_is_the_same_as_never_having_stopped(saved: Path) -> None:
    through = learn(new_learner(), STEPS)
    resumed = new_learner(seed=9)  # another start: everything that counts must come from the checkpoint
    assert load_state(saved, resumed) == {"epoch": 3, "history": [{"psnr": 20.5}]}
    resumed.step = 3
    learn(resumed, STEPS)
    expected, found = everything(through), everything(resumed)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_everything_is_in_two_files_and_none_is_a_pickle(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [COUNTERS, TENSORS]
    assert json.loads((saved / COUNTERS).read_text())["epoch"] == 3
    tensors = load_file(saved / TENSORS)
    for name, tensor in everything(learn(new_learner(), 3)).items():
        assert torch.equal(tensors[name], tensor), name
    for path in saved.iterdir():
        with pytest.raises(ValueError, match=r"opcode|pickle"):
            list(pickletools.genops(path.read_bytes()))


def test_missing(tmp_path: Path, saved: Path) -> None:
    check_refused(tmp_path / "none")
    folder = copy_of(saved, tmp_path)
    (folder / COUNTERS).unlink()
    check_refused(folder)
    copy_of(saved, tmp_path)
    (folder / TENSORS).unlink()
    check_refused(folder)


@settings(max_examples=20)
@given(data=st.data())
def test_truncated(saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "truncated"
    folder.mkdir(exist_ok=True)
    copy_of(saved, folder)
    name = data.draw(st.sampled_from([TENSORS, COUNTERS]))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    check_refused(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "epoch 3", '{"epoch": 3}', '{"history": []}', '{"epoch": "x", "history": []}'])
def test_foreign_counters(tmp_path: Path, saved: Path, text: str) -> None:
    folder = copy_of(saved, tmp_path)
    (folder / COUNTERS).write_text(text)
    check_refused(folder)


def test_a_checkpoint_of_another_run(saved: Path, tmp_path: Path) -> None:
    check_refused(saved, new_learner(width=12))
    folder = copy_of(saved, tmp_path)
    save_file({"weight": torch.zeros(2)}, folder / TENSORS)
    check_refused(folder)
    tensors = load_file(saved / TENSORS)
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.3.")}, folder / TENSORS)
    check_refused(folder)
    save_file(tensors | {"optimizer.first.step": torch.zeros(())}, folder / TENSORS)
    check_refused(folder)


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> LocalPlace:
    """A run's directory with its checkpoints: three epochs, the third of which was cut off while it was copied, as a crash leaves it."""
    place = LocalPlace(tmp_path / "run", "the run")
    for epoch in (1, 2):
        staged = tmp_path / f"staged-{epoch}"
        staged.mkdir()
        copy_of(saved, staged)
        (staged / COUNTERS).write_text(json.dumps({"epoch": epoch, "history": [{"psnr": 20.0 + epoch}] * epoch}))
        seal(staged)
        publish(staged, place, f"checkpoint_{epoch:06}_20260801T12000{epoch}")
    place.write("ray/checkpoint_000003_20260801T120003/state.json", (saved / COUNTERS).read_bytes())
    place.write("ray/checkpoint_manager_snapshot.json", b"{}")
    return place


NEWEST = "ray/checkpoint_000002_20260801T120002"


def test_the_checkpoints_of_a_run_the_newest_first(run: LocalPlace) -> None:
    said: list[str] = []
    assert [one.epoch for one in whole(run, said.append)] == [2, 1]
    assert [len(one.history) for one in whole(run)] == [2, 1]
    assert said == []
    assert next(whole(run)).path == NEWEST
    assert reached(run) == 2
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=run.root / NEWEST, capture_output=True, text=True, check=True)
    assert checked.stdout == f"{COUNTERS}: OK\n{TENSORS}: OK\n"


def test_what_was_not_finished_is_cleared_and_nothing_else(run: LocalPlace) -> None:
    clear(run)
    assert run.names("ray") == [
        "checkpoint_000001_20260801T120001",
        "checkpoint_000002_20260801T120002",
        "checkpoint_manager_snapshot.json",
    ]
    assert [one.epoch for one in whole(run)] == [2, 1]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_or_a_cut_is_noticed_and_the_one_before_is_used(run: LocalPlace, data: st.DataObject) -> None:
    path = run.root / NEWEST / data.draw(st.sampled_from([TENSORS, COUNTERS, SUMS]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    try:
        path.write_bytes(content[:place] if cut else content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        said: list[str] = []
        assert [one.epoch for one in whole(run, said.append)] == [1]
        assert len(said) == 1
        assert said[0].startswith(f"the run/{NEWEST}: damaged (")
        assert said[0].endswith("): the checkpoint before it is used")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [TENSORS, COUNTERS])
def test_a_file_that_is_gone_is_noticed(run: LocalPlace, name: str) -> None:
    (run.root / NEWEST / name).unlink()
    said: list[str] = []
    assert [one.epoch for one in whole(run, said.append)] == [1]
    assert said == [f"the run/{NEWEST}: damaged ({name} is missing): the checkpoint before it is used"]


def test_a_checkpoint_that_cannot_be_copied_to_its_end_does_not_count(run: LocalPlace, saved: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    copy_of(saved, staged)
    seal(staged)
    (staged / TENSORS).unlink()
    (staged / TENSORS).symlink_to(tmp_path / "none")
    with pytest.raises(OSError, match=r"state\.safetensors"):
        publish(staged, run, "checkpoint_000004_20260801T120004")
    assert [one.epoch for one in whole(run)] == [2, 1]
