"""The classifier learns what only colour tells, comes back from its file as it was, and no other file passes for one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from colorize.errors import ConfigError, ModelError
from colorize.evaluation.classifier import BATCH, KEY, Classifier, Lesson, load_classifier, save_classifier, train
from colorize.evaluation.recognition import check_recognizable
from colorize.imaging.colorspace import compose

SIDE = 16

FACTS = {"data": "cifar10-sample", "epochs": 6, "seed": 0}


def tinted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(RGB, L, label): pictures of noise, all of one hue: reddish (0) or bluish (1)."""
    generator = torch.Generator().manual_seed(seed)
    L_b1hw = 30 + 40 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    labels_b = torch.randint(2, (count,), generator=generator)
    ab_b2hw = torch.tensor([[25.0, 15.0], [-5.0, -25.0]])[labels_b].view(count, 2, 1, 1).expand(-1, -1, SIDE, SIDE)
    return compose(L_b1hw, ab_b2hw), L_b1hw, labels_b


@pytest.fixture(scope="module")
def trained() -> Classifier:
    rgb_n3hw, _, labels_n = tinted(BATCH, 0)
    return train(rgb_n3hw, labels_n, classes=2, epochs=25)


def test_it_learns_colour_and_misses_it_in_grey(trained: Classifier) -> None:
    rgb_b3hw, L_b1hw, labels_b = tinted(200, 1)
    grey_b3hw = compose(L_b1hw, torch.zeros(200, 2, SIDE, SIDE))
    assert (trained.recognize(rgb_b3hw) == labels_b).float().mean() > 0.95
    assert 0.3 < (trained.recognize(grey_b3hw) == labels_b).float().mean() < 0.7


def test_the_same_seed_gives_the_same_steps() -> None:
    rgb_n3hw, _, labels_n = tinted(BATCH, 0)
    first, second, other = (Lesson(rgb_n3hw, labels_n, classes=2, epochs=2, seed=seed) for seed in (0, 0, 1))
    losses = [[lesson.learn() for _ in range(2)] for lesson in (first, second, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-4)


def test_it_comes_back_as_it_was(trained: Classifier, tmp_path: Path) -> None:
    save_classifier(trained, FACTS, tmp_path / "c.safetensors")
    loaded = load_classifier(tmp_path / "c.safetensors", FACTS)
    rgb_b3hw, _, _ = tinted(20, 2)
    with torch.inference_mode():
        assert torch.equal(loaded(rgb_b3hw), trained(rgb_b3hw))


def test_one_of_other_data_is_refused(trained: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(trained, FACTS, path)
    with pytest.raises(ModelError, match=r"c\.safetensors: this classifier was trained with data cifar10-sample, not cifar10: name"):
        load_classifier(path, FACTS | {"data": "cifar10"})


def test_damage_is_noticed(trained: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(trained, FACTS, path)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged: its weights do not match"):
        load_classifier(path, FACTS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x80\x05pickle",
        b"\xff" * 100,
        {},
        {"other": "x"},
        {KEY: "{"},
        {KEY: "[]"},
        {KEY: '{"format": 1}'},
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "c.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file({"x": torch.zeros(2)}, path, metadata=content)
    with pytest.raises(ModelError, match=r"c\.safetensors: not a classifier") as caught:
        load_classifier(path, FACTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", ["folder:scans", "parquet:photos"])
def test_pictures_without_these_classes_cannot_be_recognised(data: str) -> None:
    with pytest.raises(ConfigError, match=f"--recognition: {data}: needs pictures with CIFAR-10's labels"):
        check_recognizable(data)
