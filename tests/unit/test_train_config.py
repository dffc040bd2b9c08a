"""Training settings: written and read back the same; each one that cannot be is named with its value."""

import dataclasses
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize.errors import ColorizeError, ConfigError, RunError
from colorize.train.config import TrainConfig
from colorize.train.learner import schedule


@settings(max_examples=30)
@given(
    epochs=st.integers(1, 1000),
    workers=st.integers(1, 64),
    batch=st.integers(1, 64),
    learning_rate=st.floats(1e-6, 1),
    limit=st.none() | st.integers(1, 10**6),
    data=st.text(min_size=1),
    precision=st.sampled_from(["auto", "bf16", "fp32"]),
    gpu=st.booleans(),
    encoder=st.sampled_from([None, "efficientnet-lite0", "efficientnet-lite2"]),
    more_data=st.lists(st.text()).map(tuple),
)
def test_settings_come_back_from_json(workers: int, batch: int, **given: Any) -> None:
    config = TrainConfig(workers=workers, batch_size=workers * batch, **given)
    assert config.worker_batch == batch
    assert TrainConfig.from_json(config.to_json().encode(), "config.json") == config
    assert set(json.loads(config.to_json())) == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"epochs": 0}, "epochs 0: must be above 0"),
        ({"epochs": -3}, "epochs -3: must be above 0"),
        ({"workers": 0}, "workers 0: must be above 0"),
        ({"min_workers": 0}, "min_workers 0: must lie in 1…2, the workers"),
        ({"min_workers": 3}, "min_workers 3: must lie in 1…2, the workers"),
        ({"batch_size": 0}, "batch_size 0: must be above 0"),
        ({"batch_size": 65}, "batch_size 65: must be a multiple of the workers, 2"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan: must be above 0"),
        ({"learning_rate": float("inf")}, "learning_rate inf: must be finite"),
        ({"weight_decay": float("inf")}, "weight_decay inf: must be finite"),
        ({"clip_norm": 0.0}, "clip_norm 0.0"),
        ({"palette_step": -1.0}, "palette_step -1.0: must lie in 1…128"),
        ({"palette_step": 0.5}, "palette_step 0.5: must lie in 1…128"),
        ({"warmup_share": 1.5}, "warmup_share 1.5: must lie in 0…1"),
        ({"ema_share": -0.1}, "ema_share -0.1: must lie in 0…1"),
        ({"hint_share": float("nan")}, "hint_share nan: must lie in 0…1"),
        ({"weight_decay": -1.0}, "weight_decay -1.0: must not be negative"),
        ({"error_weight": float("nan")}, "error_weight nan: must not be negative"),
        ({"size": 15}, "size 15: must be an even number"),
        ({"size": 33}, "size 33: must be an even number"),
        ({"size": 4098}, "size 4098: must be an even number of pixels, 16 to 4096"),
        ({"precision": "fp8"}, "precision 'fp8': must be auto, bf16 or fp32"),
        ({"data": "archive:s3://KEY:WORD@bucket/a"}, "archive:s3://…@bucket/a: holds a secret"),
        ({"more_data": ("folder:a", "folder:s3://KEY:WORD@b/a")}, "folder:s3://…@b/a: holds a secret"),
        ({"base": "s3://KEY:WORD@bucket/model"}, "s3://…@bucket/model: holds a secret"),
        ({"seed": -1}, "seed -1: must lie in 0…"),
        ({"seed": 2**32}, "seed 4294967296: must lie in 0…"),
        ({"limit": 0}, "limit 0: must be 1 or more"),
        ({"encoder": "resnet"}, "encoder 'resnet': must be efficientnet-lite0 or"),
        ({"encoder": "efficientnet-lite0", "size": 112}, "size 112: must be a multiple of 32 with a pretrained encoder"),
        ({"width": 6}, "width 6: must be a multiple of 4"),
        ({"depth": 0}, "depth 0: must lie in 1…6"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{"data": "cifar10-sample"} | wrong)
    assert str(caught.value).startswith(named)


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("", RunError, "not the settings of a training run"),
        ("epochs = 3", RunError, "not the settings of a training run"),
        ("[1, 2]", RunError, "not the settings of a training run"),
        ("7", RunError, "not the settings of a training run"),
        ("{}", RunError, "not the settings of a training run .*data"),
        ('{"data": "cifar10-sample", "colour": "blue"}', RunError, "not the settings of a training run .*colour"),
        ('{"data": "cifar10-sample", "epochs": "many"}', RunError, "not the settings of a training run"),
        ('{"data": "cifar10-sample", "epochs": 2.5}', RunError, "not the settings of a training run .epochs is 2.5"),
        ('{"data": "cifar10-sample", "epochs": true}', RunError, "epochs is True"),
        ('{"data": "cifar10-sample", "limit": 1.5}', RunError, "limit is 1.5"),
        ('{"data": "cifar10-sample", "gpu": "no"}', RunError, "gpu is 'no'"),
        ('{"data": "folder:a", "more_data": "folder:b"}', RunError, "more_data is 'folder:b'"),
        ('{"data": "cifar10-sample", "epochs": ' + 5000 * "9" + "}", RunError, "not the settings of a training run"),
        (100_000 * "[", RunError, "not the settings of a training run"),
        ('{"data": "cifar10-sample", "epochs": 0}', ConfigError, "epochs 0"),
    ],
)
def test_a_foreign_file(text: str, kind: type[ColorizeError], cause: str) -> None:
    with pytest.raises(kind, match=cause) as caught:
        TrainConfig.from_json(text.encode(), "run/config.json")
    assert "\n" not in str(caught.value)
    assert kind is ConfigError or str(caught.value).startswith("run/config.json: ")


def test_a_file_that_is_no_text() -> None:
    with pytest.raises(RunError, match="not the settings of a training run"):
        TrainConfig.from_json(b"\xff\xfe\x00", "run/config.json")


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_the_learning_rate_climbs_to_its_peak_and_falls_to_nothing(warmup: float) -> None:
    factors = [schedule(step / 1000, warmup) for step in range(1001)]
    top = round(warmup * 1000)
    assert max(factors) <= 1
    assert factors[top] == pytest.approx(1)
    assert all(before <= after for before, after in itertools.pairwise(factors[: top + 1]))
    assert all(before >= after for before, after in itertools.pairwise(factors[top:]))
    if warmup < 1:
        assert factors[-1] == pytest.approx(0, abs=1e-9)
