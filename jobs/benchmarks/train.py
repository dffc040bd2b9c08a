"""`train`: Ray Train, one worker a core, against a plain PyTorch loop and against the textbook loop, on 20,000 pictures of 32×32.

The bundled sample, repeated, so that the figure can be had offline; an epoch of the sample alone lasts two seconds, of which Ray Data's
start of an epoch is one.

plain     the same learner (network, precision, augmentation, optimizer, averaged weights) on tensors in memory, with as many threads
textbook  the same network in float32 NCHW, fed by a DataLoader that converts each picture with skimage when it is asked for
unet      as the textbook, with the U-Net of the textbook: full resolution, two convolutions a level, skips concatenated,
          the same width and depth, regressing ab

A step takes 256 pictures, usual for CIFAR-10. With the 64 of `colorize train`, which learn more an epoch, the workers exchange gradients
four times as often.

Ray Train is timed by its own report of the second epoch, from the first byte that is asked for to the last step. The others are timed
after their first steps, over as many pictures as take about ten seconds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from colorize import cluster
from colorize.data.dataset import load_dataset, records_to_lab, run_in_tasks
from colorize.data.tally import Tally
from colorize.model.palette import Palette
from colorize.model.unet import OUTPUT_STRIDE, UNet, UNetConfig
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.learner import Learner
from colorize.train.progress import EpochReport, Report
from colorize.train.run import build_palette, fit
from jobs.benchmarks.sample import repeated_sample

PICTURES = 20_000
BATCH = 256
"""Pictures of a step, of all workers or of a rival's loop."""

EPOCHS = 2
"""Of Ray Train in each run; the first one, in which workers warm up, is not counted."""

PLAIN_PICTURES, TEXTBOOK_PICTURES, TEXTBOOK_UNET_PICTURES = 10_000, 7_680, 2_560
"""How many pictures each rival is timed over."""

WARM_STEPS = 5
"""Steps of the other loops that are not counted."""

Pairs = Iterator[tuple[Tensor, Tensor]]


def measure(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key."""
    cores = os.cpu_count() or 1
    workers = cluster.current().cpus
    config = TrainConfig(data="cifar10-sample", epochs=EPOCHS, workers=workers, batch_size=BATCH // workers * workers, size=32)
    blocks, rgb_bhwc = repeated_sample(PICTURES)
    train = run_in_tasks(blocks, records_to_lab(Tally(), drop_grey=False)).materialize()
    test = load_dataset("cifar10-sample", split="test", limit=100).dataset
    palette = build_palette(train, config.palette_step, OUTPUT_STRIDE)
    rows = train.take_batch(PLAIN_PICTURES)
    L_b1hw, ab_b2hw = torch.from_numpy(np.array(rows["L"])), torch.from_numpy(np.array(rows["ab"]))
    torch.set_num_threads(cores)

    def classify(out: Tensor, ab: Tensor) -> Tensor:
        entropy, log_error = palette.losses(out, F.avg_pool2d(ab, OUTPUT_STRIDE))
        return entropy + config.error_weight * log_error

    def regress(out: Tensor, ab: Tensor) -> Tensor:
        return F.mse_loss(out, ab / 110)

    numbers: dict[str, list[float]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            ours = ray_train(config, Path(folder) / "run", train, test)
        plain = _plain(config, palette, L_b1hw, ab_b2hw)
        network = UNet(UNetConfig(bins=len(palette), width=config.width, depth=config.depth))
        textbook = _textbook(config, network, rgb_bhwc[:TEXTBOOK_PICTURES], classify)
        unet = _textbook(config, TextbookUNet(config.width, config.depth), rgb_bhwc[:TEXTBOOK_UNET_PICTURES], regress)
        for key, value in {
            "ratio_vs_plain_torch": ours / plain, "ratio_vs_textbook": ours / textbook, "ratio_vs_textbook_unet": ours / unet,
            "images_per_s": ours, "plain_images_per_s": plain, "textbook_images_per_s": textbook, "textbook_unet_images_per_s": unet,
        }.items():  # fmt: skip
            numbers.setdefault(key, []).append(value)
    return numbers


def ray_train(config: TrainConfig, directory: Path, train: ray.data.Dataset, test: ray.data.Dataset) -> float:
    """Pictures a second of Ray Train in all epochs but the first."""
    run = RunDirectory(directory)
    run.create(config)
    reports: list[Report] = []
    fit(config, run, train=train, validation=test, on_report=reports.append)
    _, *measured = (report for report in reports if isinstance(report, EpochReport))
    return statistics.median(report.pictures_per_second for report in measured)


def _plain(config: TrainConfig, palette: Palette, L_b1hw: Tensor, ab_b2hw: Tensor) -> float:
    learner = Learner(config, palette, torch.device("cpu"), config.epochs * PICTURES // config.batch_size)

    def batches() -> Pairs:
        for indices in torch.randperm(len(L_b1hw)).split(config.batch_size):
            if len(indices) == config.batch_size:
                yield L_b1hw[indices].float(), ab_b2hw[indices].float()

    return _rate(batches(), learner.learn)


def _textbook(config: TrainConfig, network: nn.Module, rgb_bhwc: np.ndarray, criterion: Callable[[Tensor, Tensor], Tensor]) -> float:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader: Any = DataLoader(TextbookPictures(rgb_bhwc), batch_size=config.batch_size, shuffle=True, num_workers=2, drop_last=True)

    def learn(L_b1hw: Tensor, ab_b2hw: Tensor) -> None:
        loss = criterion(network(L_b1hw), ab_b2hw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _rate(iter(loader), learn)


def _rate(batches: Pairs, learn: Callable[[Tensor, Tensor], object]) -> float:
    """Pictures a second after the first steps."""
    count, began = 0, 0.0
    for step, (L_b1hw, ab_b2hw) in enumerate(batches):
        if step == WARM_STEPS:
            began = time.perf_counter()
        learn(L_b1hw, ab_b2hw)
        count += len(L_b1hw) if step >= WARM_STEPS else 0
    return count / (time.perf_counter() - began)


class TextbookPictures(Dataset[tuple[Tensor, Tensor]]):
    """One picture at a time, converted when it is asked for."""

    def __init__(self, rgb_bhwc: np.ndarray) -> None:
        self._rgb_bhwc = rgb_bhwc

    def __len__(self) -> int:
        return len(self._rgb_bhwc)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        lab_3hw = torch.from_numpy(rgb2lab(self._rgb_bhwc[index]).transpose(2, 0, 1).astype(np.float32))
        return lab_3hw[:1], lab_3hw[1:]


class TextbookUNet(nn.Module):
    """Ronneberger, Fischer and Brox 2015, with padding and batch normalisation: L in, ab out, at full resolution."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_twice(1 if level == 0 else widths[level - 1], widths[level]) for level in range(depth + 1))
        self.lift = nn.ModuleList(nn.ConvTranspose2d(2 * upper, upper, 2, stride=2) for upper in reversed(widths[:-1]))
        self.up = nn.ModuleList(_twice(2 * upper, upper) for upper in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, L_b1hw: Tensor) -> Tensor:
        """ab / 110 (b, 2, h, w)."""
        x, skips = L_b1hw / 50 - 1, []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for lift, up in zip(self.lift, self.up, strict=True):
            x = up(torch.cat([lift(x), skips.pop()], 1))
        ab: Tensor = self.head(x)
        return ab


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    first = (nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
    return nn.Sequential(*first, nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
