"""What a training run needs to go on: weights, averaged weights, optimizer, palette and counters, as safetensors and JSON.

No pickle: `torch.save` would make every checkpoint a program that runs when it is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from colorize.errors import RunError
from colorize.train.learner import Learner

TENSORS, COUNTERS = "state.safetensors", "state.json"


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


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
