"""A trained model: network, palette and card in one safetensors file. Nothing here ever unpickles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from colorize.errors import ModelError
from colorize.imaging.files import write_whole
from colorize.model.card import ModelCard, read_card, resolve
from colorize.model.network import Network, build, config_of
from colorize.model.palette import Palette
from colorize.model.settings import VividnessDial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NETWORK = "network."
_BINS, _PRIOR = "palette.bins", "palette.prior"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorModel:
    """A network with the palette that gives its outputs meaning, and its card."""

    network: Network
    palette: Palette
    card: ModelCard

    @property
    def dial(self) -> VividnessDial:
        """What the ends of the vividness dial mean for this network."""
        return VividnessDial(**self.card.dial)

    def to_bytes(self) -> bytes:
        """The model's file: convolutions as float16, statistics and palette as float32."""
        tensors = {_NETWORK + name: stored(name, tensor) for name, tensor in self.network.state_dict().items()}
        tensors |= {_BINS: self.palette.bins_k2.cpu().contiguous(), _PRIOR: self.palette.prior_k.cpu().contiguous()}
        card = dataclasses.replace(self.card, weights_sha256=_digest(tensors))
        return save(tensors, metadata=card.to_metadata())

    def save(self, path: Path) -> None:
        """Writes the model's file whole or not at all. Raises PictureError when `path` cannot be written."""
        write_whole(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> ColorModel:
        """Reads a model file. Raises ModelError, naming the file and the cause, for anything but a whole model of this program."""
        card = read_card(path)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path}: truncated or damaged ({_first_line(error)})") from error
        if _digest(tensors) != card.weights_sha256:
            raise ModelError(f"{path}: damaged: its weights do not match the checksum in its card")
        if not are_finite(tensors.values()):
            raise ModelError(f"{path}: not all of its weights are numbers: its training diverged")
        try:
            network = build(config_of(card.network))
            palette = Palette(tensors.pop(_BINS).clone(), tensors.pop(_PRIOR).clone(), card.palette_step)  # off the mapped file
            VividnessDial(**card.dial)
            state = {name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items()}
            network.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()})
        except (KeyError, RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise ModelError(f"{path}: of another architecture than this program builds ({_first_line(error)})") from error
        return cls(network=network.eval(), palette=palette, card=card)


def load_model(name_or_path: str | Path) -> ColorModel:
    """A shipped model by name, a model file, or a training run's best model by its directory. Raises ModelError."""
    return ColorModel.load(resolve(name_or_path))


def stored(name: str, tensor: Tensor) -> Tensor:
    """A tensor of the network, by its name, as a model's file holds it."""
    # The running variance of a batch norm spans more decades than float16 holds; the weights of a convolution do not.
    narrow = tensor.is_floating_point() and "running_" not in name
    return tensor.detach().cpu().to(torch.float16 if narrow else tensor.dtype).contiguous()


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether there are only numbers in them: what is none shows in their sums, which are quicker than `isfinite` (17 ms for `photo`)."""
    return all(math.isfinite(float(tensor.sum(dtype=torch.float32))) for tensor in tensors)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha256.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha256.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
