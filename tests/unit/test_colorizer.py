"""The colorizer: any sizes in, in order, batched without a trace; colour onto the original, and its lightness kept."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colorize.data import cifar10
from colorize.errors import ConfigError
from colorize.evaluation import predict_full_size
from colorize.evaluation.measures import stretched
from colorize.imaging.colorspace import lightness_of_grey, rgb_to_lab
from colorize.model import passes
from colorize.model.colorizer import Colorizer, shrink, working_shape
from colorize.model.colormodel import load_model
from colorize.model.device import pick_device, uses_bfloat16
from colorize.model.photonet import PhotoNet, PhotoNetConfig
from colorize.model.settings import DecodeSettings
from tests.models import constant_model, small_model
from tests.pictures import grey_scene

LIGHTNESS_BOUND = 0.27
"""How far `compose` may move the lightness of a pixel, by its own word."""

MODEL = small_model()
SHAPES = [(1, 1), (3, 500), (17, 100), (48, 64), (64, 48), (1, 7), (16, 16), (48, 64), (500, 3)]


def lightness_of(rgb_hwc: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    rgb_b3hw = torch.from_numpy(np.ascontiguousarray(rgb_hwc.transpose(2, 0, 1)))[None]
    return rgb_to_lab(rgb_b3hw)[0, 0].numpy()


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(MODEL, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def lightnesses() -> list[npt.NDArray[np.float32]]:
    return [lightness_of_grey(grey_scene(*shape)) for shape in SHAPES]


def test_predictions_come_in_order_whatever_the_shapes(colorizer: Colorizer, lightnesses: list[npt.NDArray[np.float32]]) -> None:
    together = colorizer.predict(lightnesses)
    assert len(together) == len(SHAPES)
    for L_hw, prediction in zip(lightnesses, together, strict=True):
        alone = colorizer.predict([L_hw])[0]
        torch.testing.assert_close(prediction.ab_n2hw, alone.ab_n2hw, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(prediction.confidence_hw, alone.confidence_hw, atol=1e-4, rtol=1e-4)
        assert max(L_hw.shape) < 9 or prediction.ab_n2hw.std(dim=(2, 3)).max() > 1, "this model would not notice a mix-up"
    backwards = colorizer.predict(lightnesses[::-1])[::-1]
    for one, other in zip(together, backwards, strict=True):
        torch.testing.assert_close(one.ab_n2hw, other.ab_n2hw, atol=1e-3, rtol=1e-4)


def test_a_picture_can_be_shown_smaller_than_the_model_would_have_it(
    colorizer: Colorizer, lightnesses: list[npt.NDArray[np.float32]]
) -> None:
    (large,) = colorizer.predict([lightnesses[6]])
    (small,) = colorizer.predict([lightnesses[6]], working_size=MODEL.card.working_size // 2)
    assert [side // 2 for side in large.confidence_hw.shape] == list(small.confidence_hw.shape)


def test_batches_are_cut_where_memory_would_run_out(
    colorizer: Colorizer, lightnesses: list[npt.NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = colorizer.predict([lightnesses[3]] * 5), []
    hook = colorizer._network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]) // 2))  # beside their mirror images
    try:
        for most_pixels, sizes in ((2 * 16 * 20 + 200, [2, 2, 1]), (1, [1] * 5)):
            monkeypatch.setattr(passes, "CPU_PIXELS", most_pixels)
            seen.clear()
            parts = colorizer.predict([lightnesses[3]] * 5)
            assert seen == sizes
            for one, other in zip(whole, parts, strict=True):
                torch.testing.assert_close(one.ab_n2hw, other.ab_n2hw, atol=1e-3, rtol=1e-4)
    finally:
        hook.remove()


def test_a_pass_holds_fewer_pictures_where_the_network_enlarges_them() -> None:
    def most(enlarge: int) -> int:
        network = PhotoNet(PhotoNetConfig(bins=len(MODEL.palette), width=8, enlarge=enlarge)).eval()
        return Colorizer(dataclasses.replace(MODEL, network=network), device="cpu").most_together(32, 32)

    assert most(1) == 16 * most(4) > 16


def test_a_picture_gets_the_colours_of_its_mirror_image(colorizer: Colorizer) -> None:
    L_hw = lightness_of_grey(grey_scene(48, 64))
    straight, mirrored = colorizer.predict([L_hw, np.ascontiguousarray(L_hw[:, ::-1])])
    torch.testing.assert_close(mirrored.ab_n2hw, straight.ab_n2hw.flip(-1), atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(mirrored.confidence_hw, straight.confidence_hw.flip(-1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mirrored", [True, False])
def test_the_network_is_shown_the_mirror_image_where_the_card_says_so(mirrored: bool) -> None:
    model = dataclasses.replace(MODEL, card=dataclasses.replace(MODEL.card, mirrored=mirrored))
    colorizer, shown = Colorizer(model, device="cpu", precision="fp32"), []
    colorizer._network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    L_b1hw = torch.rand(3, 1, 32, 32) * 100
    colorizer.predict_batch(L_b1hw, DecodeSettings())
    (seen,) = shown
    torch.testing.assert_close(seen, torch.cat([L_b1hw, L_b1hw.flip(-1)]) if mirrored else L_b1hw)


def test_a_small_picture_is_not_enlarged_above_what_the_model_learnt_from() -> None:
    card = dataclasses.replace(MODEL.card, working_size=64, training={"config": {"size": 32}})
    shapes = [(16, 16), (32, 32), (40, 56), (64, 64), (100, 200)]
    assert [working_shape(shape, card) for shape in shapes] == [(32, 32), (32, 32), (40, 56), (64, 64), (64, 128)]
    assert all(working_shape(seen, card) == seen for seen in (working_shape(shape, card) for shape in shapes))
    silent = dataclasses.replace(card, training={})
    assert {working_shape(shape, silent) for shape in [(16, 16), (32, 32), (64, 64)]} == {(64, 64)}


@pytest.mark.parametrize("side", [20, 32, 90])
def test_what_is_scored_is_what_a_file_of_that_size_gets(colorizer: Colorizer, side: int) -> None:
    L_hw = lightness_of_grey(grey_scene(side, side))
    (prediction,) = colorizer.predict([L_hw])
    scored_b2hw = predict_full_size(colorizer, torch.from_numpy(L_hw)[None, None], DecodeSettings())
    torch.testing.assert_close(scored_b2hw, stretched([prediction.ab_n2hw[0]], (side, side)))


def test_nothing_in_nothing_out(colorizer: Colorizer) -> None:
    assert colorizer.predict([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (2000, 3), (17, 400)])
def test_extreme_shapes(colorizer: Colorizer, shape: tuple[int, int]) -> None:
    """A strip is squeezed for the network, to at most 8 short sides; its colours still cover the whole of it."""
    grey = grey_scene(*shape)
    prediction = colorizer.predict([lightness_of_grey(grey)])[0]
    seen = max(prediction.ab_n2hw.shape[-2:]) * 2
    assert seen <= 8 * 16


@pytest.mark.parametrize("ab", [(0.0, 0.0), (20.0, -30.0), (-40.0, 40.0)])
def test_a_network_that_is_certain_of_one_colour_predicts_it_everywhere(
    ab: tuple[float, float], lightnesses: list[npt.NDArray[np.float32]]
) -> None:
    colorizer = Colorizer(constant_model(*ab), device="cpu")
    for vividness in (0.0, 1.0):
        predictions = colorizer.predict(lightnesses, DecodeSettings(vividness=vividness))
        for prediction in predictions:
            assert (prediction.ab_n2hw - torch.tensor(ab).view(1, 2, 1, 1)).abs().max() < 1e-3
            assert (prediction.confidence_hw > 0.999).all()


def test_candidates(colorizer: Colorizer) -> None:
    L_hw = lightness_of_grey(grey_scene(48, 64))
    one = colorizer.predict([L_hw])[0].ab_n2hw
    four = colorizer.predict([L_hw], DecodeSettings(candidates=4))[0].ab_n2hw
    assert one.shape[:2] == (1, 2)
    assert four.shape == (4, *one.shape[1:])
    torch.testing.assert_close(four[0], one[0], atol=1e-3, rtol=1e-4)
    distances = torch.cdist(four.mean((2, 3)), four.mean((2, 3)))
    assert distances[~torch.eye(4, dtype=torch.bool)].min() > 1


def test_vividness_and_temperature_reach_the_decoder(colorizer: Colorizer) -> None:
    L_hw = lightness_of_grey(grey_scene(48, 64))

    def chroma(settings: DecodeSettings) -> float:
        return float(colorizer.predict([L_hw], settings)[0].ab_n2hw.norm(dim=1).mean())

    assert chroma(DecodeSettings(vividness=0)) < chroma(DecodeSettings(vividness=0.5)) < chroma(DecodeSettings(vividness=1))
    assert chroma(DecodeSettings(temperature=1.0)) < chroma(DecodeSettings(temperature=0.05))


def test_confidence_lies_in_its_range(colorizer: Colorizer, lightnesses: list[npt.NDArray[np.float32]]) -> None:
    for prediction in colorizer.predict(lightnesses):
        assert prediction.confidence_hw.shape == prediction.ab_n2hw.shape[-2:]
        assert prediction.confidence_hw.dtype == torch.float32
        assert 0 <= prediction.confidence_hw.min() <= prediction.confidence_hw.max() <= 1
        assert prediction.mean_confidence == pytest.approx(float(prediction.confidence_hw.mean()))


def test_precision_and_device() -> None:
    cpu = torch.device("cpu")
    assert uses_bfloat16("bf16", cpu)
    assert not uses_bfloat16("fp32", cpu)
    assert pick_device("cpu") == cpu
    L_hw = lightness_of_grey(grey_scene(48, 64))
    exact = Colorizer(MODEL, device="cpu", precision="fp32").predict([L_hw])[0]
    rounded = Colorizer(MODEL, device="cpu", precision="bf16").predict([L_hw])[0]
    assert rounded.ab_n2hw.dtype == torch.float32
    assert (rounded.ab_n2hw - exact.ab_n2hw).norm(dim=1).mean() < 2


@pytest.mark.parametrize("device", ["", "tpu9", "gpu"])
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"^device '{device}': must be auto, cpu or cuda$"):
        Colorizer(MODEL, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device 'cuda': torch sees no CUDA GPU on this machine"):
        Colorizer(MODEL, device="cuda")


@given(height=st.integers(1, 90), width=st.integers(1, 90), working_size=st.sampled_from([4, 16, 32]))
@example(height=400, width=3, working_size=16)
@example(height=16, width=16, working_size=16)
@settings(max_examples=30)
def test_the_network_says_the_same_of_a_shrunk_picture(height: int, width: int, working_size: int) -> None:
    colorizer = Colorizer(small_model(working_size=working_size), device="cpu", precision="fp32")
    L_hw = lightness_of_grey(grey_scene(height, width))
    small_hw = shrink(L_hw, colorizer.model.card)
    expected, found = (colorizer.predict([lightness])[0] for lightness in (L_hw, small_hw))
    assert np.array_equal(found.ab_n2hw.numpy(), expected.ab_n2hw.numpy())
    assert np.array_equal(found.confidence_hw.numpy(), expected.confidence_hw.numpy())


@pytest.mark.parametrize("model", ["cifar10", "photo"])
def test_a_processor_with_bfloat16_gives_the_colours_of_one_without(model: str) -> None:
    records = cifar10.read_sample("test")[::40]
    rgb_b3hw = torch.from_numpy(records[:, 1:].reshape(-1, 3, cifar10.SIDE, cifar10.SIDE).copy())
    L_hw_list = list(rgb_to_lab(rgb_b3hw)[:, 0].numpy())
    loaded = load_model(model)
    exact, rounded = (
        torch.cat([one.ab_n2hw for one in Colorizer(loaded, device="cpu", precision=precision).predict(L_hw_list)])
        for precision in ("fp32", "bf16")
    )
    assert (rounded - exact).norm(dim=1).mean() < 0.3
    assert rounded.square().mean().sqrt() == pytest.approx(float(exact.square().mean().sqrt()), rel=0.03)
