"""Batches of a bulk run: a picture gets in any of them, bit for bit, what it gets alone."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from colorize.archive.batches import GPU_BATCH, predict_in_batches
from colorize.model.card import resolve
from colorize.model.colorizer import Colorizer, Prediction, working_shape
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings

SETTINGS = DecodeSettings(vividness=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def is_same(one: Prediction, other: Prediction) -> bool:
    return torch.equal(one.ab_n2hw, other.ab_n2hw) and torch.equal(one.confidence_hw, other.confidence_hw)


def scene(seed: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Lightness with structure: bands under noise."""
    made = np.random.default_rng(seed)
    bands = 50 + 40 * np.sin(np.arange(shape[0])[:, None] / 9 + np.arange(shape[1]) / 17 + seed)
    return (bands + made.normal(0, 8, shape)).clip(0, 100).astype(np.float32)


@pytest.mark.parametrize("model", ["photo", "cifar10"])
@pytest.mark.parametrize("sides", [(3, 3), (3, 4), (4, 3), (3, 2), (1, 3)])
def test_on_a_cpu_a_picture_in_a_batch_gets_what_it_gets_alone(model: str, sides: tuple[int, int]) -> None:
    colorizer = Colorizer(load_model(resolve(model)), device="cpu")
    shape = working_shape((100 * sides[0], 100 * sides[1]), colorizer.model.card)
    seen = [scene(seed, shape) for seed in range(4)]
    alone = [predict_in_batches(colorizer, [L_hw], SETTINGS)[0] for L_hw in seen]
    assert all(is_same(*pair) for pair in zip(predict_in_batches(colorizer, seen, SETTINGS), alone, strict=True))
    other = scene(9, (shape[1], shape[0]) if shape[0] != shape[1] else (shape[0], 2 * shape[1]))
    mixed = predict_in_batches(colorizer, [seen[2], other, seen[0], seen[3], seen[1], seen[2]], SETTINGS)
    assert all(is_same(mixed[place], alone[number]) for place, number in ((0, 2), (2, 0), (3, 3), (4, 1), (5, 2)))


class Gpu:
    """What `predict_in_batches` needs of a colorizer on a GPU: it notes what it is shown, and answers with it."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []

    def most_together(self, height: int, width: int) -> int:
        return 1_000_000 // (height * width)

    def predict_batch(self, L_b1hw: torch.Tensor, settings: DecodeSettings) -> list[Prediction]:
        self.shown.append(tuple(L_b1hw.shape))
        return [Prediction(ab_n2hw=L_1hw[None].expand(1, 2, -1, -1), confidence_hw=L_1hw[0]) for L_1hw in L_b1hw]


def test_on_a_gpu_all_batches_of_a_shape_have_one_size() -> None:
    gpu: Any = Gpu()
    small, long = (192, 192), (1536, 192)
    seen = [scene(seed, long if seed % 10 == 0 else small) for seed in range(2 * GPU_BATCH + 3)]
    found = predict_in_batches(cast(Colorizer, gpu), seen, SETTINGS)
    assert all(np.array_equal(prediction.confidence_hw.numpy(), L_hw) for prediction, L_hw in zip(found, seen, strict=True))
    few = gpu.most_together(*long)
    assert gpu.shown == [(few, 1, *long)] * 2 + [(GPU_BATCH, 1, *small)] * 2
    predict_in_batches(cast(Colorizer, gpu), seen[1:2], SETTINGS)
    assert gpu.shown[-1] == (GPU_BATCH, 1, *small)
