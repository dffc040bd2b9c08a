"""The classifier that belongs to a data source: read from its file, or trained on the Ray that is connected.

It is bound to what it was trained on by the kind of the source, which its file carries: CIFAR-10 and the bundled sample are checked against
known checksums whenever they are read, so the kind says which pictures these were. Training takes all CPUs of one machine, or a GPU, in one
task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from colorize import cluster
from colorize.data import cifar10
from colorize.data.dataset import load_dataset
from colorize.data.sources import parse_source
from colorize.errors import ConfigError
from colorize.evaluation.classifier import EPOCHS, Classifier, load_classifier, save_classifier, train

SEED = 0


def check_recognizable(data: str) -> None:
    """Raises ConfigError for a source whose pictures are not those of CIFAR-10's ten classes."""
    if parse_source(data).kind not in ("cifar10", "cifar10-sample"):
        raise ConfigError(f"--recognition: {data}: needs pictures with CIFAR-10's labels: use --data cifar10 or cifar10-sample")


def classifier_for(data: str, file: Path | None = None, *, on_training: Callable[[str], None] | None = None) -> Classifier:
    """The classifier of the training part of a source.

    file: it is read from there, or, where there is none yet, trained and written there; None: trained, and kept nowhere. `on_training` is
    told, in words, that it begins and that it is done. Raises ConfigError for a source without known labels, DataError for one
    that cannot be read, ModelError for a file that is something else, PictureError for one that cannot be written.
    """
    check_recognizable(data)
    expected = {"data": parse_source(data).kind, "epochs": EPOCHS, "seed": SEED}
    if file is not None and file.exists():
        return load_classifier(file, expected)
    say = on_training or (lambda told: None)
    began = time.monotonic()
    loaded = load_dataset(data, split="train")
    say(f"learns from {loaded.pictures:,} pictures, {EPOCHS} times each")
    columns = loaded.dataset.select_columns(["rgb", "label", "name"])
    cpus, gpus = _one_machine()
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_train)
    classifier: Classifier = ray.get(task.remote(columns.to_numpy_refs(), cpus))
    seconds = round(time.monotonic() - began)
    if file is not None:
        save_classifier(classifier, expected | {"pictures": loaded.pictures, "seconds": seconds}, file)
    say(f"trained in {seconds} s{f', kept in {file}' if file else ''}")
    return classifier


def _train(refs: list[ray.ObjectRef[Any]], cpus: int) -> Classifier:
    torch.set_num_threads(max(1, cpus))
    torch.set_flush_denormal(True)
    blocks = ray.get(refs)
    rgb_n3hw, labels_n, names_n = (np.concatenate([block[name] for block in blocks]) for name in ("rgb", "label", "name"))
    order_n = np.argsort(names_n)  # blocks come in the order in which tasks were done
    return train(torch.from_numpy(rgb_n3hw[order_n]), torch.from_numpy(labels_n[order_n]), classes=len(cifar10.CLASS_NAMES), seed=SEED)


def _one_machine() -> tuple[int, int]:
    """(CPUs, GPUs) for the task: a GPU where there is one, else all CPUs of the largest machine."""
    info = cluster.require(cpus=1, what="training the classifier")
    if info.gpus:
        return 1, 1
    nodes: list[dict[str, Any]] = ray.nodes()
    return max(int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), 0
