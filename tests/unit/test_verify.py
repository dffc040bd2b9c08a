"""`colorize verify` and `colorize restore`: the proof that lightness stays, and the original that comes back."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorize import Colorizer, PictureError, colorize_scan, open_scan
from colorize.cli.main import main
from colorize.imaging.verify import verify
from tests.models import small_model
from tests.pictures import encoded, grey_scene, rgb_scene

COLORIZER = Colorizer(small_model(), device="cpu", precision="fp32")
GREY_JPEG = encoded(grey_scene(50, 70), "JPEG", quality=90)
GREY_PNG = encoded(grey_scene(50, 70), "PNG")
GREY_16 = encoded(grey_scene(50, 70).astype(np.uint16) * 256 + 77, "PNG")


def colored(data: bytes) -> bytes:
    return colorize_scan(open_scan(data), COLORIZER)


@pytest.mark.parametrize("data", [GREY_JPEG, encoded(rgb_scene(50, 70), "JPEG"), encoded(rgb_scene(9, 5), "JPEG", progressive=True)])
def test_a_jpeg_is_proved_by_its_coefficients(data: bytes) -> None:
    verdict = verify(open_scan(data), open_scan(colored(data)))
    assert (verdict.method, verdict.luma_identical, verdict.max_lightness_error, verdict.is_faithful) == ("dct", True, 0.0, True)


@pytest.mark.parametrize(("data", "limit"), [(GREY_PNG, 1 / 255), (encoded(rgb_scene(), "TIFF"), 1 / 255), (GREY_16, 2 / 65535)])
def test_other_formats_are_proved_by_their_pixels(data: bytes, limit: float) -> None:
    verdict = verify(open_scan(data), open_scan(colored(data)))
    assert verdict.method == "pixels"
    assert verdict.is_faithful
    assert verdict.max_lightness_error <= limit


def test_a_changed_picture_is_found() -> None:
    other_hw = grey_scene(50, 70).copy()
    other_hw[10, 20] ^= 16
    assert not verify(open_scan(GREY_PNG), open_scan(encoded(other_hw, "PNG"))).is_faithful
    verdict = verify(open_scan(GREY_JPEG), open_scan(encoded(other_hw, "JPEG", quality=90)))
    assert (verdict.method, verdict.luma_identical, verdict.is_faithful) == ("dct", False, False)
    assert verdict.max_lightness_error > 0
    again = verify(open_scan(GREY_JPEG), open_scan(encoded(np.array(Image.open(BytesIO(GREY_JPEG))), "JPEG", quality=60)))
    assert not again.luma_identical, "encoded anew, with another quantisation table"


def test_pictures_that_cannot_be_compared() -> None:
    with pytest.raises(PictureError, match=r"^b: has 60×50 pixels, and a has 70×50$"):
        verify(open_scan(GREY_PNG, name="a"), open_scan(encoded(grey_scene(50, 60), "PNG"), name="b"))


def test_the_command_says_and_exits_with_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, result, other = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"
    original.write_bytes(GREY_JPEG)
    result.write_bytes(colored(GREY_JPEG))
    other.write_bytes(encoded(grey_scene(50, 70), "JPEG", quality=50))
    assert main(["verify", str(original), str(result), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"method": "dct", "luma_identical": True, "max_lightness_error": 0.0}
    assert main(["verify", str(original), str(other), "--json", str(tmp_path / "found.json")]) == 1
    assert json.loads((tmp_path / "found.json").read_text())["luma_identical"] is False
    assert "the luma's coefficients are not the original's" in capsys.readouterr().out
    assert main(["verify", str(original), str(tmp_path / "none.jpg")]) == 1
    assert capsys.readouterr().err == f"colorize: {tmp_path / 'none.jpg'}: there is no such file\n"


def test_restore_gives_the_original_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, restored = tmp_path / "b.jpg", tmp_path / "c.jpg"
    result.write_bytes(colored(GREY_JPEG))
    assert main(["restore", str(result), "-o", str(restored)]) == 0
    back = Image.open(restored)
    assert back.mode == "L"
    assert np.array_equal(np.array(back), np.array(Image.open(BytesIO(GREY_JPEG))))
    before = restored.read_bytes()
    assert main(["restore", str(result), "-o", str(restored)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert restored.read_bytes() == before
    (tmp_path / "d.png").write_bytes(colored(GREY_PNG))
    assert main(["restore", str(tmp_path / "d.png"), "-o", str(tmp_path / "e.jpg")]) == 1
    assert "is a PNG file" in capsys.readouterr().err
    assert not (tmp_path / "e.jpg").exists()
