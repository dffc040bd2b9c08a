"""What a training run needs to go on: weights, averaged weights, optimizer, palette and counters, as safetensors and JSON.

    RUN/ray/checkpoint_000003_20260801T120000/
      state.safetensors   weights, averaged weights, optimizer
      state.json          counters and history
      model.safetensors   the averaged network as a model
      SHA256SUMS          of all of them, as `sha256sum` writes and checks it

No pickle: `torch.save` would make every checkpoint a program that runs when it is read. A checkpoint appears under its name whole or not at
all (`publish`), and what a disk does to it later is noticed by its sums (`whole`): then the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from colorize.errors import RunError
from colorize.train.learner import Learner

FOLDER = "ray"
"""Ray Train's folder in the run's."""

TENSORS, COUNTERS, SUMS = "state.safetensors", "state.json", "SHA256SUMS"
PREFIX, PARTIAL = "checkpoint_", ".partial"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A whole checkpoint."""

    path: Path
    epoch: int
    """The last epoch that is in it."""
    history: list[dict[str, Any]]
    """One row an epoch."""


def save_state(directory: Path, learner: Learner, counters: dict[str, Any]) -> None:
    """Writes everything into `directory`, the counters last: a checkpoint without them was not finished."""
    tensors = {f"network.{name}": tensor for name, tensor in learner.network.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in learner.averaged.state_dict().items()}
    for index, state in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    # Contiguous copies: safetensors knows no channels-last.
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, directory / TENSORS)
    (directory / COUNTERS).write_text(json.dumps(counters))


def load_state(directory: Path, learner: Learner) -> dict[str, Any]:
    """Puts a checkpoint back into the learner and returns its counters. Raises RunError when it is damaged or of other settings."""
    try:
        counters: Any = json.loads((directory / COUNTERS).read_text())
        if not isinstance(counters, dict) or not isinstance(counters.get("epoch"), int) or not isinstance(counters.get("history"), list):
            raise ValueError(f"{COUNTERS} does not say where the run was")
        tensors = load_file(directory / TENSORS, device=str(learner.device))
        learner.network.load_state_dict(_under("network.", tensors))
        learner.averaged.load_state_dict(_under("averaged.", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = tensor
        groups = learner.optimizer.state_dict()["param_groups"]
        if sorted(states) != sorted(index for group in groups for index in group["params"]):
            raise ValueError("the optimizer's state is not that of this network")
        learner.optimizer.load_state_dict({"state": states, "param_groups": groups})
    except (OSError, SafetensorError, json.JSONDecodeError, RuntimeError, ValueError) as error:
        raise RunError(f"{directory}: not a whole checkpoint of this run ({str(error).splitlines()[0]})") from error
    return dict(counters)


def seal(directory: Path) -> None:
    """Writes the sums of all files of a checkpoint that is complete."""
    (directory / SUMS).write_text("".join(_line(path) for path in sorted(directory.iterdir()) if path.name != SUMS))


def damage(directory: Path) -> str | None:
    """Why a sealed checkpoint is not whole any more; None where it is."""
    try:
        written = (directory / SUMS).read_text()
        names = [line[66:] for line in written.split("\n")[:-1]]
        if not {TENSORS, COUNTERS} <= set(names):
            return f"{SUMS} is not whole"
        now = {name: _line(directory / name) for name in names}
        if "".join(now.values()) != written:
            changed = [name for name, line in now.items() if line not in written]
            return f"{(changed or [SUMS])[0]} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    return None


def publish(staged: Path, directory: Path) -> None:
    """Copies a sealed checkpoint to its place on shared storage, where it appears whole. Raises OSError."""
    partial = directory.with_name(directory.name + PARTIAL)
    shutil.copytree(staged, partial, copy_function=_copy_and_flush)
    partial.rename(directory)


def whole(folder: Path, on_damage: Callable[[str], None] = lambda line: None) -> Iterator[Saved]:
    """The whole checkpoints of a run, the newest first; `on_damage` gets a line for each one before them that is not."""
    for directory in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        if directory.name.endswith(PARTIAL) or not directory.is_dir():
            continue
        if reason := damage(directory):
            on_damage(f"{directory}: damaged ({reason}): the checkpoint before it is used")
            continue
        counters = json.loads((directory / COUNTERS).read_text())
        yield Saved(path=directory, epoch=counters["epoch"], history=counters["history"])


def reached(folder: Path) -> int:
    """The last epoch of the newest whole checkpoint; 0 where there is none."""
    return next((saved.epoch for saved in whole(folder)), 0)


def _line(path: Path) -> str:
    """Of a file, the line that `sha256sum` prints."""
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n"


def _copy_and_flush(source: str, target: str) -> None:
    with Path(source).open("rb") as reading, Path(target).open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
