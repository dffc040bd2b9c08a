"""The model deployment: lightness in, chroma out, batched across requests.

Knows nothing of HTTP or of picture files. Only what the network sees and says crosses the process boundary: 64 KB in and 48 KB out a
picture at a working size of 128, whatever the size of the scan. The model comes as bytes, since a replica may run on a machine that has
never seen the file.
"""

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from ray import serve

from colorize.model.card import SUFFIX
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.serve.codec import Answer, Question
from colorize.serve.config import ServeConfig


class Predictor:
    """One replica: the network on its device, and one thread that runs it."""

    def __init__(self, model: bytes, config: ServeConfig) -> None:
        """model: the bytes of a model file."""
        # A thread of its own, and not asyncio's: both settings count for the thread that makes them and for those it starts.
        self._thread = ThreadPoolExecutor(1, "predict", initializer=_settle_thread, initargs=(config.model_threads,))
        self._colorizer = self._thread.submit(_load, model).result()
        batched = serve.batch(max_batch_size=config.batch_size, batch_wait_timeout_s=config.batch_wait_seconds)
        self._predict_batched = batched(self._predict_batch)

    async def predict(self, question: Question) -> Answer:
        """Waits for the batch that the question gets into."""
        return await self._predict_batched(question)

    async def _predict_batch(self, questions: list[Question]) -> list[Answer]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, questions)

    def _predict(self, questions: list[Question]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for settings in dict.fromkeys(question.settings for question in questions):
            indices = [index for index, question in enumerate(questions) if question.settings == settings]
            # Ray's arrays are read-only views of shared memory, which torch warns of: the copies are of the network's size.
            predictions = self._colorizer.predict([questions[index].L_hw.copy() for index in indices], settings)
            for index, prediction in zip(indices, predictions, strict=True):
                answers[index] = Answer(
                    ab_2hw=prediction.ab_n2hw[0].numpy(), confidence_hw=prediction.confidence_hw.numpy(), batch_size=len(indices)
                )
        return [answers[index] for index in range(len(questions))]


def _settle_thread(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def _load(model: bytes) -> Colorizer:
    with tempfile.TemporaryDirectory(prefix="colorize-") as folder:
        path = Path(folder) / f"model{SUFFIX}"
        path.write_bytes(model)
        colorizer = Colorizer(ColorModel.load(path))
    side = colorizer.model.card.working_size
    colorizer.predict([np.zeros((side, side), np.float32)])  # the first pass is slow: before the replica counts as ready
    return colorizer
