"""A small classifier of colour pictures, which says whether a coloured picture can be told for what it shows; its training, its file.

As Zhang, Isola and Efros 2016 judge colours (there with a VGG net on ImageNet). It learns from colour pictures only, so that
it misses the colour of grey ones; no colour is ever changed in its training. It knows nothing of Ray or of colouring.

Seven convolutions, 0.39 M parameters, 31 M multiplications a picture of 32×32, trained by SGD with a one-cycle schedule: what is
the cheapest way to 85 % on CIFAR-10. A step's randomness is a function of the seed and the step's number alone.

The file is safetensors; its header says, as JSON under the key `colorize_classifier`, what it was trained on, and carries the SHA-256 of
the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from colorize.errors import ModelError
from colorize.imaging.files import write_whole
from colorize.model.device import pick_device, uses_bfloat16

EPOCHS = 6
BATCH = 250
PEAK_RATE, MOMENTUM, DECAY, SMOOTHING = 0.2, 0.9, 5e-4, 0.1
WARM_SHARE = 0.2
"""The share of the steps in which the learning rate rises; then it falls to 0."""
SHIFT = 2
"""Pictures are moved by up to this many pixels while it learns."""

KEY = "colorize_classifier"
FORMAT = 1
LARGEST_FILE = 50_000_000

_CHANNEL_MEAN, _CHANNEL_SCALE = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""CIFAR-10's, of 0…255."""


class Classifier(nn.Module):
    """RGB pictures of at least 8×8 in, a score for each class out."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(3, 24), *_layer(24, 32, halve=True), *_layer(32, 32), *_layer(32, 96, halve=True), *_layer(96, 96),
            *_layer(96, 128, halve=True), *_layer(128, 128),
        )  # fmt: skip
        self.head = nn.Linear(128, classes, bias=False)

    def forward(self, rgb_b3hw: Tensor) -> Tensor:
        """Logits (b, classes). rgb_b3hw: 0…255."""
        mean_3, scale_3 = (torch.tensor(values, device=rgb_b3hw.device) for values in (_CHANNEL_MEAN, _CHANNEL_SCALE))
        x = (rgb_b3hw.float() - mean_3.view(3, 1, 1)) / scale_3.view(3, 1, 1)
        x = self.layers(x.contiguous(memory_format=torch.channels_last))
        logits_bc: Tensor = self.head(x.amax((2, 3))) / 8  # small at first, as the loss wants it
        return logits_bc

    def recognize(self, rgb_b3hw: Tensor) -> Tensor:
        """The class that each picture, with its mirror image, looks most like: (b,) int64, on the CPU."""
        self.eval()
        with torch.inference_mode():
            logits_bc: Tensor = self(rgb_b3hw) + self(rgb_b3hw.flip(-1))
        return logits_bc.argmax(1).cpu()


class Lesson:
    """The training of a classifier, step by step."""

    def __init__(self, rgb_n3hw: Tensor, labels_n: Tensor, *, classes: int, epochs: int = EPOCHS, seed: int = 0) -> None:
        """rgb_n3hw: uint8, at least `BATCH` pictures; labels_n: int64."""
        assert len(rgb_n3hw) >= BATCH
        self._rgb_n3hw, self._labels_n, self._seed = rgb_n3hw, labels_n, seed
        self._device = pick_device("auto")
        self._bfloat16 = uses_bfloat16("auto", self._device)
        torch.manual_seed(seed)
        self.classifier = Classifier(classes)
        self.classifier.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._steps_an_epoch = len(rgb_n3hw) // BATCH
        self.steps, self.step = epochs * self._steps_an_epoch, 0
        matrices = [parameter for parameter in self.classifier.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in self.classifier.parameters() if parameter.ndim == 1]
        self.optimizer = torch.optim.SGD(
            [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
            lr=PEAK_RATE,
            momentum=MOMENTUM,
            nesterov=True,
        )

    def learn(self) -> float:
        """Takes a step and returns its cross-entropy, in nats."""
        rate = PEAK_RATE * _triangle(self.step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        epoch, number = divmod(self.step, self._steps_an_epoch)
        order_n = torch.randperm(len(self._rgb_n3hw), generator=torch.Generator().manual_seed(self._seed + epoch))
        chosen_b = order_n[number * BATCH : (number + 1) * BATCH]
        drawn = torch.Generator().manual_seed(self._seed + 1_000_003 * (self.step + 1))
        rgb_b3hw = _moved(self._rgb_n3hw[chosen_b].float(), drawn).to(self._device)
        self.classifier.train()
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            logits_bc = self.classifier(rgb_b3hw)
        loss = F.cross_entropy(logits_bc.float(), self._labels_n[chosen_b].to(self._device), label_smoothing=SMOOTHING)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())


def train(rgb_n3hw: Tensor, labels_n: Tensor, *, classes: int, epochs: int = EPOCHS, seed: int = 0) -> Classifier:
    """A classifier that has learnt from these pictures, on the CPU; the arguments are those of `Lesson`."""
    lesson = Lesson(rgb_n3hw, labels_n, classes=classes, epochs=epochs, seed=seed)
    while lesson.step < lesson.steps:
        lesson.learn()
    return lesson.classifier.cpu().eval()


def save_classifier(classifier: Classifier, facts: Mapping[str, Any], path: Path) -> None:
    """Writes a classifier whole or not at all; `facts`: what it was trained on, JSON. Raises PictureError when it cannot be written."""
    tensors = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    header = {"format": FORMAT, "classes": classifier.head.out_features, "sha256": _digest(tensors), "facts": dict(facts)}
    write_whole(path, save(tensors, metadata={KEY: json.dumps(header)}))


def load_classifier(path: Path, expected: Mapping[str, Any]) -> Classifier:
    """Reads what `save_classifier` wrote.

    expected: the facts that must hold of it. Raises ModelError for a file that is damaged, is something else, or was trained on other data.
    """
    foreign = f"{path}: not a classifier that `colorize evaluate --recognition` wrote: name another file for --classifier"
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(foreign)
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
        version, classes, sha256, facts = header["format"], header["classes"], header["sha256"], header["facts"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(foreign) from error
    if version != FORMAT:
        raise ModelError(f"{path}: a classifier of format {version}; this program reads {FORMAT}: name another file for --classifier")
    if _digest(tensors) != sha256:
        raise ModelError(f"{path}: damaged: its weights do not match its checksum; delete it, or name another file for --classifier")
    if not isinstance(facts, dict):
        raise ModelError(foreign)
    for key, value in expected.items():
        if facts.get(key) != value:
            was = f"{key} {facts.get(key)!s:.40}, not {value}"
            raise ModelError(f"{path}: this classifier was trained with {was}: name another file for --classifier")
    try:
        classifier = Classifier(classes)
        classifier.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(foreign) from error
    return classifier.eval()


def _layer(inputs: int, outputs: int, *, halve: bool = False) -> list[nn.Module]:
    pool = [nn.MaxPool2d(2)] if halve else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *pool, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _triangle(share: float) -> float:
    return share / WARM_SHARE if share < WARM_SHARE else (1 - share) / (1 - WARM_SHARE)


def _moved(rgb_b3hw: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture, or its mirror image, moved by up to `SHIFT` pixels; what comes in is its reflection."""
    b, _, height, width = rgb_b3hw.shape
    flip_b111 = torch.rand(b, 1, 1, 1, generator=generator) < 0.5
    padded_b3hw = F.pad(torch.where(flip_b111, rgb_b3hw.flip(-1), rgb_b3hw), (SHIFT,) * 4, mode="reflect")
    top_b1, left_b1 = (torch.randint(2 * SHIFT + 1, (b, 1), generator=generator) for _ in range(2))
    rows_bh1, columns_b1w = (top_b1 + torch.arange(height))[:, :, None], (left_b1 + torch.arange(width))[:, None, :]
    return padded_b3hw[torch.arange(b)[:, None, None], :, rows_bh1, columns_b1w].movedim(-1, 1)


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(save(tensors)).hexdigest()
