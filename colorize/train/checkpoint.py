"""What a training run needs to go on: weights, averaged weights, optimizer, palette and counters, as safetensors and JSON.

    RUN/ray/checkpoint_000003_20260801T120000/
      state.safetensors   weights, averaged weights, optimizer
      state.json          counters and history
      model.safetensors   the averaged network as a model
      SHA256SUMS          of all of them, as `sha256sum` writes and checks it

No pickle: `torch.save` would make every checkpoint a program that runs when it is read. The sums are written last (`publish`): a checkpoint
without them is one that was not finished. What a disk does to it later is noticed by them (`whole`): then the one before it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from colorize.errors import RunError
from colorize.storage.place import Place, cause, digest
from colorize.train.learner import Learner

FOLDER = "ray"
"""Ray Train's folder in the run's."""

TENSORS, COUNTERS, SUMS = "state.safetensors", "state.json", "SHA256SUMS"
PREFIX = "checkpoint_"

_NAME = re.compile(rf"{PREFIX}\d")  # Ray's own notes begin with the prefix too


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A whole checkpoint."""

    path: str
    """Its folder, in the run's directory."""
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
    lines = []
    for path in sorted(directory.iterdir()):
        if path.name != SUMS:
            with path.open("rb") as file:
                lines.append(_line(digest(file), path.name))
    (directory / SUMS).write_text("".join(lines))


def publish(staged: Path, run: Place, name: str) -> str:
    """Copies a sealed checkpoint into a run's directory, the sums last, and gives its folder there. Raises OSError."""
    folder = f"{FOLDER}/{name}"
    for path in sorted(staged.iterdir(), key=lambda path: path.name == SUMS):
        run.write(f"{folder}/{path.name}", path.read_bytes())
    return folder


def clear(run: Place) -> None:
    """Removes what a killed worker had not copied to its end. Raises OSError."""
    for folder in _folders(run):
        if not _is_finished(run, folder):
            run.remove(folder)


def whole(run: Place, on_damage: Callable[[str], None] = lambda line: None) -> Iterator[Saved]:
    """The whole checkpoints of a run, the newest first; `on_damage` gets a line for each one before them that is not.

    Raises RunError where they cannot be read.
    """
    try:
        for folder in _folders(run):
            if not _is_finished(run, folder):
                continue
            if reason := damage(run, folder):
                on_damage(f"{run.shown}/{folder}: damaged ({reason}): the checkpoint before it is used")
                continue
            counters = json.loads(run.read(f"{folder}/{COUNTERS}"))
            yield Saved(path=folder, epoch=counters["epoch"], history=counters["history"])
    except OSError as error:
        raise RunError(f"{run.shown}/{FOLDER}: cannot be read ({cause(error)})") from error


def damage(run: Place, folder: str) -> str | None:
    """Why a checkpoint that was sealed is not whole any more; None where it is."""
    there = run.names(folder)
    try:
        written = run.read(f"{folder}/{SUMS}").decode()
        names = [line[66:] for line in written.split("\n")[:-1]]
        if not {TENSORS, COUNTERS} <= set(names):
            return f"{SUMS} is not whole"
        for name in names:
            if name not in there:
                return f"{name} is missing"
        now = {name: _line(run.sha256(f"{folder}/{name}"), name) for name in names}
    except (OSError, ValueError) as error:
        return f"cannot be read: {cause(error)}"
    if "".join(now.values()) != written:
        changed = [name for name, line in now.items() if line not in written]
        return f"{(changed or [SUMS])[0]} has changed since it was written"
    return None


def reached(run: Place) -> int:
    """The last epoch of the newest whole checkpoint; 0 where there is none. Raises RunError where they cannot be read."""
    return next((saved.epoch for saved in whole(run)), 0)


def _folders(run: Place) -> list[str]:
    """Of all checkpoints, whole or not, the newest first."""
    return [f"{FOLDER}/{name}" for name in reversed(run.names(FOLDER)) if _NAME.match(name)]


def _is_finished(run: Place, folder: str) -> bool:
    """Whether a checkpoint was copied to its end."""
    return run.look(f"{folder}/{SUMS}") is not None


def _line(sha256: str, name: str) -> str:
    """Of a file, the line that `sha256sum` prints."""
    return f"{sha256}  {name}\n"


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
