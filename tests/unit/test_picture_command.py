"""`colorize picture`: what is written, what is refused in which words, and that Ray stays out of it."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from colorize.cli.main import main
from tests.pictures import encoded, grey_scene, jpeg_claiming, rgb_scene

GREY_JPEG = encoded(grey_scene(), "JPEG", quality=90)
GREY_PNG = encoded(grey_scene(60, 41), "PNG")


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def opened(path: Path) -> Image.Image:
    return Image.open(BytesIO(path.read_bytes()))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_pictures_come_out_under_their_names_at_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"a.jpg": GREY_JPEG, "b.PNG": GREY_PNG, "sepia.jpeg": encoded(rgb_scene(), "JPEG"), "ü [red].png": GREY_PNG}
    source, output = put(tmp_path / "in", files), tmp_path / "new" / "out"
    assert main(["picture", *(str(source / name) for name in files), "-o", str(output), "--vividness", "1"]) == 0
    assert names(output) == sorted(files)
    assert {name: (source / name).read_bytes() for name in files} == files
    for name, data in files.items():
        before, after = Image.open(BytesIO(data)), opened(output / name)
        assert (after.format, after.size, after.mode) == (before.format, before.size, "RGB")
        if after.format == "PNG":
            error = rgb2lab(np.array(after))[..., 0] - rgb2lab(np.array(before.convert("RGB")))[..., 0]
            assert np.abs(error).max() < 0.3
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(output / name) for name in files]
    assert lines[0].split("  ")[1].startswith("64×48, confidence 0.")


def test_pages_have_a_map_each_and_sizes_are_told_upright(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif, pages = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    first, second = Image.fromarray(grey_scene(30, 50)), Image.fromarray(grey_scene(20, 24))
    first.save(pages, "TIFF", save_all=True, append_images=[second])
    files = {"turned.jpg": encoded(grey_scene(), "JPEG", exif=exif.tobytes()), "two.tif": pages.getvalue()}
    source, output = put(tmp_path / "in", files), tmp_path / "out"
    assert main(["picture", *(str(source / name) for name in files), "-o", str(output), "--confidence"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1].split(",")[0] for line in lines] == ["48×64", "48×64", "50×30", "50×30", "24×20"]
    maps = ["turned-confidence.png", "two-confidence.2.png", "two-confidence.png"]
    assert names(output) == sorted([*files, *maps])
    assert [opened(output / name).size for name in maps] == [(48, 64), (24, 20), (50, 30)]


def test_candidates_and_a_confidence_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path, {"in/a.b.jpg": GREY_JPEG}) / "in" / "a.b.jpg"
    assert main(["picture", str(source), "-o", str(tmp_path / "out"), "--candidates", "3", "--confidence"]) == 0
    assert names(tmp_path / "out") == ["a.b-2.jpg", "a.b-3.jpg", "a.b-confidence.png", "a.b.jpg"]
    confidence = opened(tmp_path / "out" / "a.b-confidence.png")
    assert (confidence.mode, confidence.size) == ("L", (64, 48))
    pictures = [np.array(opened(tmp_path / "out" / name)) for name in ("a.b.jpg", "a.b-2.jpg", "a.b-3.jpg")]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_bad_file_is_one_line_and_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        "text.jpg": (b"hello\n", "is text, not a picture"),
        "empty.png": (b"", "is empty (zero bytes)"),
        "cut.jpg": (GREY_JPEG[:400], "is a truncated or damaged JPEG"),
        "cut.png": (GREY_PNG[:-40], "is a truncated PNG"),
        "bomb.jpg": (jpeg_claiming(60_000, 60_000), "has 60000×60000 pixels by its header"),
    }
    source = put(tmp_path / "in", {name: data for name, (data, _) in bad.items()} | {"good.jpg": GREY_JPEG})
    order = [*bad, "missing.jpg", ".", "good.jpg"]
    assert main(["picture", *(str(source / name) for name in order), "-o", str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == ["good.jpg"]
    printed = capsys.readouterr()
    reasons = [reason for _, reason in bad.values()] + ["there is no such file", "is a folder, not a picture"]
    errors = printed.err.splitlines()
    assert len(errors) == len(reasons)
    for line, name, reason in zip(errors, order, reasons, strict=False):
        assert line.startswith(f"colorize: {source / name}: {reason}")
    assert len(printed.out.splitlines()) == 1


def test_where_nothing_is_written_no_folder_is_left(tmp_path: Path) -> None:
    source = put(tmp_path, {"in/cut.jpg": GREY_JPEG[:400]}) / "in" / "cut.jpg"
    (tmp_path / "there").mkdir()
    for output in ("there", "new/out", "there/out"):
        assert main(["picture", str(source), "-o", str(tmp_path / output)]) == 1
    assert names(tmp_path) == ["in", "there"]
    assert names(tmp_path / "there") == []


@pytest.mark.parametrize("size", [(1, 1), (3, 20_000), (20_000, 3)])
def test_tiny_and_extreme_shapes_are_colored(tmp_path: Path, size: tuple[int, int]) -> None:
    source = put(tmp_path, {"in/a.png": encoded(np.full(size, 128, np.uint8), "PNG")}) / "in" / "a.png"
    assert main(["picture", str(source), "-o", str(tmp_path / "out"), "--confidence"]) == 0
    assert opened(tmp_path / "out" / "a.png").size == size[::-1]


def test_what_is_there_already_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "in", {"a.jpg": GREY_JPEG, "b.jpg": GREY_JPEG})
    output = put(tmp_path / "out", {"a-2.jpg": b"mine"})
    command = ["picture", str(source / "a.jpg"), str(source / "b.jpg"), "-o", str(output), "--candidates", "2"]
    assert main(command) == 1
    assert names(output) == ["a-2.jpg", "b-2.jpg", "b.jpg"]
    assert (output / "a-2.jpg").read_bytes() == b"mine"
    expected = f"colorize: {source / 'a.jpg'}: {output / 'a-2.jpg'} is there already, and nothing is overwritten: give another folder\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("files", "options", "output", "message"),
    [
        (["a.jpg", "deep/a.jpg"], [], "out", "both would become"),
        (["a.jpg", "a.jpg"], [], "out", "both would become"),
        (["a.jpg", "a-2.jpg"], ["--candidates", "2"], "out", "both would become"),
        (["a.png", "a-confidence.png"], ["--confidence"], "out", "both would become"),
        (["a.jpg"], [], "in", "is the folder of"),
        (["a.jpg"], [], "in/deep/..", "is the folder of"),
        (["a.jpg"], [], "in/a.jpg", "cannot be made a folder for the results (File exists)"),
        (["a.jpg"], [], "in/a.jpg/out", "cannot be made a folder for the results (Not a directory)"),
        (["a.jpg"], ["--vividness", "1.5"], "out", "vividness 1.5: must lie in 0…1"),
        (["a.jpg"], ["--candidates", "0"], "out", "candidates 0: must lie in 1…12"),
        (["a.jpg"], ["--model", "none"], "out", "none: no such model"),
    ],
)
def test_what_cannot_work_is_one_line_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], options: list[str], output: str, message: str
) -> None:
    source = put(tmp_path / "in", dict.fromkeys(("a.jpg", "a-2.jpg", "a.png", "a-confidence.png", "deep/a.jpg"), GREY_JPEG))
    before = sorted(tmp_path.rglob("*"))
    assert main(["picture", *(str(source / name) for name in files), "-o", str(tmp_path / output), *options]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("colorize: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_ray_is_not_imported(tmp_path: Path) -> None:
    source = put(tmp_path, {"in/a.jpg": GREY_JPEG}) / "in" / "a.jpg"
    script = (
        "import sys; from colorize.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or ('ray was imported' if 'ray' in sys.modules else 0))"
    )
    command = [sys.executable, "-c", script, "picture", str(source), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path / "out") == ["a.jpg"]


def test_a_hint_is_obeyed_and_what_is_wrong_with_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "in", {"a.png": GREY_PNG, "b.png": GREY_PNG})
    hints = tmp_path / "hints.json"
    hints.write_text('[{"x": 20, "y": 20, "color": "#b03030"}]')
    command = ["picture", str(source / "a.png"), "--hints", str(hints)]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    red, green, blue = np.asarray(opened(tmp_path / "out" / "a.png").convert("RGB"))[20, 20].astype(int)
    assert red > max(green, blue)
    hints.write_text('[{"x": 20000, "y": 20, "color": "#b03030"}]')
    capsys.readouterr()
    for wrong, message in ((command, "lies outside the picture"), ([*command, str(source / "b.png")], "belongs to one picture")):
        assert main([*wrong, "-o", str(tmp_path / "other")]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_name_with_a_line_break_is_complained_of_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path, {"a.png": GREY_PNG})
    assert main(["picture", str(source / "a.png"), "-o", str(tmp_path / "out"), "--palette", "house\nstyle.json"]) == 1
    assert capsys.readouterr().err.startswith("colorize: house?style.json: no such file; the palettes that ship: ")
