"""The model's replica without Ray: what becomes of questions to a model whose file is damaged."""

import asyncio
import warnings
from pathlib import Path

import numpy as np
import pytest

from colorize.errors import ModelError
from colorize.model.colorizer import Colorizer
from colorize.model.settings import DecodeSettings
from colorize.serve.catalog import Entry
from colorize.serve.codec import Question
from colorize.serve.config import ServeConfig
from tests.models import small_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from colorize.serve import predictor
    from colorize.serve.predictor import Predictor


def test_a_damaged_version_is_read_once_and_the_last_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, file, load, loaded = tmp_path / "own", tmp_path / "house.safetensors", predictor._load_file, []

    def counted(entry: Entry) -> Colorizer:
        loaded.append(entry.version)
        if len(loaded) == 1:
            raise OSError("the disk was away for a moment")
        return load(entry)

    def write(seed: int, is_damaged: bool = False) -> None:
        new = tmp_path / "new"
        small_model(seed=seed, working_size=32).save(new)
        if is_damaged:
            data = bytearray(new.read_bytes())
            data[-1] ^= 1  # of the weights: the header is whole
            new.write_bytes(data)
        new.replace(file)

    monkeypatch.setattr(predictor, "_load_file", counted)
    small_model(working_size=32).save(own)
    question = Question(L16_hw=np.full((32, 32), 32768, np.uint16), settings=DecodeSettings(), model="house")

    async def ask() -> None:
        served = Predictor(own.read_bytes(), small_model(working_size=32).card, ServeConfig(models_dir=str(tmp_path)))
        write(1)
        with pytest.raises(ModelError, match="model house"):
            await served.predict(question)
        first = await served.predict(question)
        write(2, is_damaged=True)
        for _ in range(3):
            assert (await served.predict(question)).model_sha256 == first.model_sha256
        assert len(loaded) == 3, "what only could not be read is tried again, what is damaged is not"
        write(3)
        assert (await served.predict(question)).model_sha256 != first.model_sha256

    asyncio.run(ask())
