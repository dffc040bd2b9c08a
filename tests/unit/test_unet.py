"""The U-Net takes any size, keeps pictures of a batch apart, and says which settings it cannot be built with."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize.errors import ConfigError
from colorize.model.unet import UNet, UNetConfig, pad_to_stride

NETWORK = UNet(UNetConfig(bins=5, width=8, depth=3)).eval()


@settings(max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_any_size_gives_logits_at_half_resolution(height: int, width: int) -> None:
    with torch.inference_mode():
        logits = NETWORK(torch.rand(1, 1, height, width) * 100)
    assert logits.shape == (1, 5, -(-height // 2), -(-width // 2))
    assert logits.isfinite().all()


def test_no_hints_are_hints_of_zero() -> None:
    L_b1hw = torch.rand(2, 1, 32, 32) * 100
    with torch.inference_mode():
        torch.testing.assert_close(NETWORK(L_b1hw), NETWORK(L_b1hw, torch.zeros(2, 3, 32, 32)))


def test_a_hint_changes_the_answer_around_it() -> None:
    L_b1hw, hints = torch.rand(1, 1, 64, 64) * 100, torch.zeros(1, 3, 64, 64)
    hints[:, :, 30, 30] = torch.tensor([60.0, 40.0, 1.0])
    with torch.inference_mode():
        change = (NETWORK(L_b1hw, hints) - NETWORK(L_b1hw)).abs().amax(1)[0]
    assert change[15, 15] > 0


def test_pictures_of_a_batch_do_not_touch() -> None:
    L_b1hw = torch.rand(3, 1, 32, 32) * 100
    with torch.inference_mode():
        torch.testing.assert_close(NETWORK(L_b1hw)[1:2], NETWORK(L_b1hw[1:2]), atol=1e-4, rtol=1e-4)


@given(size=st.integers(1, 40), stride=st.sampled_from([2, 8, 16]))
def test_padding_reflects(size: int, stride: int) -> None:
    row = torch.arange(size, dtype=torch.float32).view(1, 1, 1, size)
    padded = pad_to_stride(row, stride)[0, 0, 0].tolist()
    assert len(padded) % stride == 0
    assert len(padded) - size < stride
    assert padded[:size] == list(range(size))
    if 1 < size < len(padded):
        assert padded[size] == size - 2
    assert set(padded) <= set(range(size))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"bins": 1}, "bins 1"),
        ({"bins": 5, "width": 6}, "width 6"),
        ({"bins": 5, "depth": 0}, "depth 0"),
        ({"bins": 5, "width": 64, "widest": 32}, "widest 32"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        UNetConfig(**wrong)
