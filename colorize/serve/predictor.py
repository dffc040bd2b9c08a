"""The model deployment: lightness in, chroma out, batched across requests, a bounded number of models side by side.

Knows nothing of HTTP or of picture files. Only what the network sees and says crosses the process boundary: 70 KB in and 70 KB out a
picture at a working size of 160, whatever the size of the scan. The service's own model comes as bytes, since a replica may run on a
machine that has never seen the file; the others are read where they lie when they are first asked for.

The cache of models is one of its own and not Serve's multiplexing, which gives a replica one model a request and no hint of the next
version of a file, and splits batches only by a header that a client may set (`serve_multiplexed_model_id`).
"""

import asyncio
import logging
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from ray import serve

from colorize.errors import ModelError
from colorize.model.card import SUFFIX, ModelCard
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.serve.batcher import Batcher
from colorize.serve.catalog import Catalog, Entry, Version
from colorize.serve.codec import Answer, Question
from colorize.serve.config import ServeConfig
from colorize.serve.lru import Models
from colorize.serve.meter import ModelMeter, Series

_log = logging.getLogger("ray.serve")


class Predictor:
    """One replica: networks on their device, one thread that runs them, and one that loads them."""

    def __init__(self, model: bytes, card: ModelCard, config: ServeConfig) -> None:
        """model: the bytes of the file of the service's own model, and its card."""
        self._catalog = Catalog(card, config.models_dir)
        self._models = Models(config.max_models)
        self._meter = ModelMeter()
        self._waiting = 0
        # A thread of its own, and not asyncio's: both settings count for the thread that makes them and for those it starts.
        self._thread = ThreadPoolExecutor(1, "predict", initializer=_settle_thread, initargs=(config.threads,))
        self._loader = ThreadPoolExecutor(1, "load", initializer=_settle_thread, initargs=(1,))
        self._damaged: dict[str, Version | None] = {}
        """By name, the last version of a file that was none: it would be read anew for every question."""
        self._loading: dict[tuple[str, Version | None], asyncio.Future[Colorizer]] = {}
        self._own = self._thread.submit(_load_bytes, model).result()
        self._batcher = Batcher(self._predict_batch, config.batch_size, config.batch_wait_seconds)

    async def predict(self, question: Question) -> Answer:
        """Waits for the model, where it is not loaded, and for the batch that the question gets into. Raises ModelError."""
        self._waiting += 1
        self._meter.waiting(self._waiting)
        try:
            return await self._batcher.ask((question, *await self._model(question.model)))
        finally:
            self._waiting -= 1
            self._meter.waiting(self._waiting)

    async def series(self) -> tuple[str, list[Series]]:
        """This replica's name and its measurements."""
        return serve.get_replica_context().replica_id.unique_id, self._meter.series()

    async def loaded(self) -> list[str]:
        """The names of the models in memory."""
        return [self._catalog.own.name, *self._models.names()]

    async def _model(self, name: str | None) -> tuple[Colorizer, str]:
        """The model and what it is called."""
        entry = self._catalog.own if name is None else await asyncio.to_thread(self._catalog.find, name)
        if entry.path is None:
            return self._own, entry.name
        colorizer = self._models.get(entry)
        if colorizer is None:
            colorizer = await self._load(entry)
        return colorizer, entry.name

    async def _load(self, entry: Entry) -> Colorizer:
        """Loads a model once, however many ask for it; where its new version is none, the old one stays."""
        key = (entry.name, entry.version)
        if key in self._damaged.items():
            return self._last_version(entry.name)
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.get_running_loop().run_in_executor(self._loader, _load_file, entry)
            loading.add_done_callback(lambda _: self._loading.pop(key, None))
        try:
            colorizer = await asyncio.shield(loading)
        except (OSError, MemoryError, ModelError) as error:
            if isinstance(error, ModelError):  # the others may pass
                self._damaged[entry.name] = entry.version
            _log.error("model %s: its file cannot be read, is damaged or of another program: %s", entry.name, error)
            return self._last_version(entry.name)
        self._models.put(entry, colorizer)
        return colorizer

    def _last_version(self, name: str) -> Colorizer:
        """The one in memory of a model whose file is none now. Raises ModelError."""
        old = self._models.any_version(name)
        if old is None:
            raise ModelError(f"model {name}: its file is damaged or of another program")
        return old

    async def _predict_batch(self, asked: list[tuple[Question, Colorizer, str]]) -> list[Answer]:
        began = time.monotonic()
        answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, asked)
        self._meter.batch(len(asked), time.monotonic() - began)
        return answers

    def _predict(self, asked: list[tuple[Question, Colorizer, str]]) -> list[Answer]:
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, (question, colorizer, _) in enumerate(asked):
            groups.setdefault((id(colorizer), question.settings, question.working_size), []).append(index)
        answers: dict[int, Answer] = {}
        for indices in groups.values():
            question, colorizer, name = asked[indices[0]]
            members = [asked[index][0] for index in indices]
            L_hw_list, hints = [member.lightness() for member in members], [member.hints for member in members]
            predictions = colorizer.predict(L_hw_list, question.settings, hints if any(hints) else None, working_size=question.working_size)
            for index, prediction in zip(indices, predictions, strict=True):
                answers[index] = Answer(
                    ab_n2hw=prediction.ab_n2hw.numpy(), confidence_hw=prediction.confidence_hw.numpy(),
                    batch_size=len(indices), model=name, model_sha256=colorizer.model.card.weights_sha256,
                )  # fmt: skip
        return [answers[index] for index in range(len(asked))]


def _settle_thread(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def _load_file(entry: Entry) -> Colorizer:
    """Not from where it lies: tensors are maps of the file that they come from, and one that is written over would end the process."""
    assert entry.path is not None, "only files are loaded later"
    return _load_bytes(entry.path.read_bytes())


def _load_bytes(model: bytes) -> Colorizer:
    with tempfile.TemporaryDirectory(prefix="colorize-") as folder:
        path = Path(folder) / f"model{SUFFIX}"
        path.write_bytes(model)
        colorizer = Colorizer(ColorModel.load(path))
    side = colorizer.model.card.working_size
    colorizer.predict([np.zeros((side, side), np.float32)])  # the first pass is slow: before the replica counts as ready
    return colorizer
