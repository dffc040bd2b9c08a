"""The network for photographs takes any size, starts with neutral hints, and goes into a model file and back; old files are U-Nets."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize.errors import ConfigError, ModelError
from colorize.model.card import ModelCard
from colorize.model.colorizer import Colorizer, working_shape
from colorize.model.colormodel import ColorModel
from colorize.model.network import build, config_of, fields_of
from colorize.model.photonet import PhotoNet, PhotoNetConfig
from colorize.model.settings import VividnessDial
from colorize.model.unet import UNet, UNetConfig
from colorize.train.checkpoint import load_state, save_state
from colorize.train.config import TrainConfig
from colorize.train.learner import ENCODER_SHARE, Learner
from tests.imagenet import make_package, random_weights
from tests.models import small_palette


def new_network(bins: int = 5) -> PhotoNet:
    torch.manual_seed(0)
    network = PhotoNet(PhotoNetConfig(bins=bins, width=8))
    network.encoder.load_imagenet(random_weights())
    return network.eval()


NETWORK = new_network()


@settings(max_examples=12)
@given(height=st.integers(1, 80), width=st.integers(1, 80))
def test_any_size_gives_logits_at_quarter_resolution(height: int, width: int) -> None:
    with torch.inference_mode():
        logits = NETWORK(torch.rand(1, 1, height, width) * 100, torch.zeros(1, 3, height, width))
    assert logits.shape == (1, 5, -(-height // 4), -(-width // 4))
    assert logits.isfinite().all()


@settings(max_examples=12)
@given(height=st.integers(1, 40), width=st.integers(1, 40), enlarge=st.sampled_from([2, 4]))
def test_an_enlarged_picture_gives_finer_logits(height: int, width: int, enlarge: int) -> None:
    network = PhotoNet(PhotoNetConfig(bins=5, width=8, enlarge=enlarge)).eval()
    step = 4 // enlarge
    assert (network.config.stride, network.config.output_stride) == (32 // enlarge, step)
    hints = torch.zeros(1, 3, height, width)
    with torch.inference_mode():
        logits = network(torch.rand(1, 1, height, width) * 100, hints)
    assert logits.shape == (1, 5, -(-height // step), -(-width // step))


def test_a_hint_on_an_enlarged_picture_reaches_its_own_cell() -> None:
    torch.manual_seed(0)
    network = PhotoNet(PhotoNetConfig(bins=5, width=8, enlarge=2)).eval()
    with torch.no_grad():
        network.late_hints.weight.normal_()
    L_b1hw, hints = torch.rand(1, 1, 32, 32) * 100, torch.zeros(1, 3, 32, 32)
    hints[:, :, 20, 9] = torch.tensor([60.0, 40.0, 1.0])
    with torch.inference_mode():
        change_hw = (network(L_b1hw, hints) - network(L_b1hw)).abs().amax(1)[0]
    assert change_hw[10, 4] > 0
    assert torch.equal(change_hw.nonzero().amin(0), torch.tensor([9, 3])), "the last block looks one cell further, no more"
    assert torch.equal(change_hw.nonzero().amax(0), torch.tensor([11, 5]))


def test_hints_change_nothing_until_they_are_learnt() -> None:
    L_b1hw, hints = torch.rand(1, 1, 64, 64) * 100, torch.zeros(1, 3, 64, 64)
    hints[:, :, 30, 30] = torch.tensor([60.0, 40.0, 1.0])
    with torch.inference_mode():
        assert torch.equal(NETWORK(L_b1hw, hints), NETWORK(L_b1hw))


@pytest.mark.parametrize("join", ["early_hints", "late_hints"])
def test_each_of_the_two_ways_in_carries_hints(join: str) -> None:
    network = new_network()
    with torch.no_grad():
        getattr(network, join).weight.normal_()
    L_b1hw, hints = torch.rand(1, 1, 64, 64) * 100, torch.zeros(1, 3, 64, 64)
    hints[:, :, 30, 30] = torch.tensor([60.0, 40.0, 1.0])
    with torch.inference_mode():
        change = (network(L_b1hw, hints) - network(L_b1hw)).abs().amax(1)[0]
        assert change[7, 7] > 0
        assert torch.equal(network(L_b1hw, torch.zeros_like(hints)), network(L_b1hw)), "no hint is none"


def test_one_hint_tells_its_cell_as_much_as_sixteen() -> None:
    network = new_network()
    with torch.no_grad():
        network.late_hints.weight.normal_()
    L_b1hw, one = torch.rand(1, 1, 32, 32) * 100, torch.zeros(1, 3, 32, 32)
    one[:, :, 9, 10] = torch.tensor([60.0, 40.0, 1.0])
    full = torch.zeros(1, 3, 32, 32)
    full[:, :, 8:12, 8:12] = torch.tensor([60.0, 40.0, 1.0]).view(1, 3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(network(L_b1hw, one), network(L_b1hw, full))


def test_pictures_of_a_batch_do_not_touch() -> None:
    L_b1hw = torch.rand(3, 1, 32, 64) * 100
    with torch.inference_mode():
        torch.testing.assert_close(NETWORK(L_b1hw)[1:2], NETWORK(L_b1hw[1:2]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"bins": 1}, "bins 1"),
        ({"bins": 5, "width": 6}, "width 6"),
        ({"bins": 5, "encoder": "resnet"}, "encoder 'resnet'"),
        ({"bins": 5, "enlarge": 3}, "enlarge 3"),
        ({"bins": 5, "deepest": 3}, "deepest 3"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PhotoNetConfig(**wrong)


# What a card says of it


def test_a_card_says_which_kind_it_is() -> None:
    for config in (UNetConfig(bins=7, width=8), PhotoNetConfig(bins=7, width=8)):
        assert config_of(fields_of(config)) == config
        assert isinstance(build(config), UNet if isinstance(config, UNetConfig) else PhotoNet)
    assert config_of({"bins": 7, "width": 8, "depth": 2, "widest": 64}) == UNetConfig(bins=7, width=8, depth=2, widest=64)
    with pytest.raises(ConfigError, match="network kind 'resnet'"):
        config_of({"kind": "resnet", "bins": 7})


def model_of(network: PhotoNet) -> ColorModel:
    card = ModelCard(
        name="photos", network=fields_of(network.config), palette_step=20.0, working_size=64, dial=dataclasses.asdict(VividnessDial()),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )  # fmt: skip
    return ColorModel(network=network, palette=small_palette(), card=card)


def test_a_model_file_brings_it_back(tmp_path: Path) -> None:
    model = model_of(new_network(bins=25))
    model.save(tmp_path / "photos.safetensors")
    found = ColorModel.load(tmp_path / "photos.safetensors")
    assert found.card.network == {
        "kind": "photonet",
        "bins": 25,
        "encoder": "efficientnet-lite0",
        "width": 8,
        "enlarge": 1,
        "deepest": None,
    }
    [prediction] = Colorizer(found, device="cpu", precision="fp32").predict([torch.rand(90, 130).numpy() * 100])
    assert working_shape((90, 130), found.card) == (64, 96)
    assert prediction.ab_n2hw.shape == (1, 2, 16, 24)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    model = model_of(new_network(bins=25))
    for name, wrong in {"kind": "resnet", "encoder": "efficientnet-lite2", "depth": 3}.items():
        card = dataclasses.replace(model.card, network=model.card.network | {name: wrong})
        dataclasses.replace(model, card=card).save(tmp_path / "other.safetensors")
        with pytest.raises(ModelError, match="of another architecture than this program builds"):
            ColorModel.load(tmp_path / "other.safetensors")


# How it learns


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainConfig]:
    make_package(tmp_path / "packages")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield TrainConfig(data="x", workers=1, batch_size=4, size=64, encoder="efficientnet-lite0", precision="fp32", hint_share=0.5)
    torch.set_flush_denormal(False)  # a learner turns it on for its thread


def test_its_encoder_starts_from_imagenet_and_learns_more_slowly(config: TrainConfig) -> None:
    learner = Learner(config, small_palette(), torch.device("cpu"), 20)
    assert isinstance(learner.network, PhotoNet)
    start = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    torch.testing.assert_close(start["encoder.blocks.3.project.weight"], random_weights()["_blocks.3._project_conv.weight"])
    rates = [group["peak"] for group in learner.optimizer.param_groups]
    assert rates == [config.learning_rate * ENCODER_SHARE, config.learning_rate]
    parameters = [parameter for group in learner.optimizer.param_groups for parameter in group["params"]]
    assert len(parameters) == len({*map(id, parameters)}) == len(list(learner.network.parameters()))
    learner.step = 10
    L_b1hw = torch.rand(4, 1, 72, 72) * 100
    learner.learn(L_b1hw, torch.cat([L_b1hw - 50, 30 - L_b1hw / 2], 1))
    moved = {name: float((tensor - start[name]).detach().abs().max()) for name, tensor in learner.network.named_parameters()}
    assert 0 < moved["encoder.blocks.3.project.weight"] < 0.5 * moved["head.weight"]
    assert moved["late_hints.weight"] > 0


def test_a_checkpoint_brings_both_groups_back(config: TrainConfig, tmp_path: Path) -> None:
    learner = Learner(config, small_palette(), torch.device("cpu"), 20)
    L_b1hw = torch.rand(4, 1, 64, 64) * 100
    learner.learn(L_b1hw, torch.cat([L_b1hw - 50, 30 - L_b1hw / 2], 1))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_state(folder, learner, {"epoch": 1, "history": []})
    resumed = Learner(config, small_palette(), torch.device("cpu"), 20)
    load_state(folder, resumed)
    state, found = learner.optimizer.state_dict()["state"], resumed.optimizer.state_dict()["state"]
    assert state.keys() == found.keys()
    for index, averages in state.items():
        assert torch.equal(averages["exp_avg"], found[index]["exp_avg"])
