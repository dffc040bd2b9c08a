"""A training run's directory: a folder that every node sees, or one in a bucket.

    RUN/config.json          the settings
    RUN/history.json         one row an epoch
    RUN/model.safetensors    the best model, calibrated; written when the training is done, and again with its scores
    RUN/tensorboard/         the curves
    RUN/ray/                 Ray Train's checkpoints: the latest one and the best two

It is never silently overwritten or resumed. Every failure of what holds it is a RunError.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from colorize.errors import RunError
from colorize.model.card import SUFFIX, ModelCard, read_card
from colorize.model.colormodel import ColorModel
from colorize.storage.place import LocalPlace, cause, lock
from colorize.storage.remote import RemotePlace, open_place
from colorize.train.config import TrainConfig

CONFIG_FILE, HISTORY_FILE, MODEL_FILE = "config.json", "history.json", f"model{SUFFIX}"


class RunDirectory:
    """One run's directory, by its path or URL. It can be sent to a worker on another node."""

    def __init__(self, spec: str | Path) -> None:
        """spec: a path, or a URL such as `s3://bucket/runs/one`. Nothing is looked up yet. Raises StorageError."""
        place = open_place(spec)
        # Workers have another working directory.
        self.place = LocalPlace(place.root.absolute(), place.shown) if isinstance(place, LocalPlace) else place

    def __str__(self) -> str:
        """What messages call it."""
        return self.place.shown

    @property
    def name(self) -> str:
        """Of the run: what its model is called."""
        return PurePosixPath(self.root).name

    @property
    def root(self) -> str:
        """Its path, in `filesystem`."""
        assert isinstance(self.place, LocalPlace | RemotePlace), "open_place makes no other"
        return str(self.place.root)

    @property
    def filesystem(self) -> fs.FileSystem | None:
        """Where `root` is, as Ray takes it; None: on the disk."""
        return self.place.filesystem if isinstance(self.place, RemotePlace) else None

    def at(self, name: str) -> str:
        """What messages call a file of it."""
        return f"{self}/{name}"

    def has(self, name: str) -> bool:
        """Whether it has such a file."""
        with self._telling(name, "looked up"):
            return self.place.look(name) is not None

    def read(self, name: str) -> bytes:
        """A file of it. Raises RunError when it has none of that name."""
        with self._telling(name, "read"):
            return self.place.read(name)

    def write(self, name: str, data: bytes) -> None:
        """A file of it, whole or not at all, in place of an older one."""
        with self._telling(name, "written"):
            self.place.write(name, data)

    def check_new(self) -> None:
        """Raises RunError when there is something in the way of a new run, or, on a disk, it could not be made: loading data takes long."""
        if isinstance(self.place, LocalPlace) and self.place.root.is_file():
            raise RunError(f"{self}: is a file: name a directory that is not there yet with --run")
        if self.has(""):
            raise RunError(f"{self}: is there already; resume it with --resume {self}, or name another one with --run")
        if not isinstance(self.place, LocalPlace):
            return
        above = next(folder for folder in self.place.root.parents if os.path.lexists(folder))
        if not above.is_dir():
            raise RunError(f"{self}: cannot be made ({os.strerror(errno.ENOTDIR)})")
        if not os.access(above, os.W_OK | os.X_OK):
            raise RunError(f"{self}: cannot be made ({above} cannot be written)")

    def create(self, config: TrainConfig) -> None:
        """Makes the directory of a new run. Raises RunError when there is one already, or it cannot be made."""
        self.check_new()
        with self._telling("", "made"):
            if not isinstance(self.place, LocalPlace):
                self.place.write(CONFIG_FILE, config.to_json().encode())
                return
            # It appears with its settings in it: killed before, there is none yet. Of two programs that are here together, one makes it.
            root = self.place.root
            root.parent.mkdir(parents=True, exist_ok=True)
            made = LocalPlace(root.with_name(f".{uuid.uuid4().hex}.partial"), self.place.shown)
            try:
                made.write(CONFIG_FILE, config.to_json().encode())
                made.rename("", str(root))
            finally:
                made.remove("")

    @contextmanager
    def held(self) -> Iterator[None]:
        """For this process alone, until the block or the process ends. Raises RunError where another one trains in it.

        On a disk; a bucket has no locks. Two that go on with one run would take each other's checkpoints for their own.
        """
        with ExitStack() as stack:
            if isinstance(self.place, LocalPlace):
                with suppress(OSError):  # it cannot be opened for writing: whoever writes there says so
                    file = stack.enter_context((self.place.root / CONFIG_FILE).open("r+b"))
                    if not lock(file):
                        raise RunError(f"{self}: another process is training it: wait until that has ended")
            yield

    def open(self) -> TrainConfig:
        """The settings of a run that is to be resumed.

        Raises RunError when there is none, it is finished (its model has its scores), or another process is training it.
        """
        if not self.has(CONFIG_FILE):
            raise RunError(f"{self}: not a training run (it has no {CONFIG_FILE})")
        if self.has(MODEL_FILE) and self._card().metrics:
            raise RunError(f"{self}: this run is finished; its model is {self.at(MODEL_FILE)}")
        with self.held():
            return self.settings()

    def settings(self) -> TrainConfig:
        """Those of a run, finished or not. Raises RunError, and ConfigError where they are out of range."""
        return TrainConfig.from_json(self.read(CONFIG_FILE), self.at(CONFIG_FILE))

    def save_history(self, history: list[dict[str, Any]]) -> None:
        """Writes RUN/history.json."""
        self.write(HISTORY_FILE, (json.dumps(history, indent=1) + "\n").encode())

    def save_model(self, model: ColorModel) -> None:
        """Writes RUN/model.safetensors."""
        self.write(MODEL_FILE, model.to_bytes())

    def load_model(self, name: str = MODEL_FILE) -> ColorModel:
        """A model file of it. Raises ModelError for one that is damaged."""
        with self.local(name) as path:
            return ColorModel.load(path)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A file or folder of it, as a path of this machine, for as long as the block lasts; folders without those in them."""
        if isinstance(self.place, LocalPlace):
            yield self.place.root / name
            return
        with tempfile.TemporaryDirectory(prefix="colorize-run-") as folder:
            copy = Path(folder) / PurePosixPath(name).name
            if names := self._names(name):
                copy.mkdir()
                for one in names:
                    (copy / one).write_bytes(self.read(f"{name}/{one}"))
            else:
                copy.write_bytes(self.read(name))
            yield copy

    def _card(self) -> ModelCard:
        with self.local(MODEL_FILE) as path:
            return read_card(path)

    def _names(self, name: str) -> list[str]:
        with self._telling(name, "read"):
            return self.place.names(name)

    @contextmanager
    def _telling(self, name: str, act: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            told = os.strerror(errno.ENOENT) if isinstance(error, FileNotFoundError) else cause(error)
            raise RunError(f"{self.at(name) if name else self}: cannot be {act} ({told})") from error
