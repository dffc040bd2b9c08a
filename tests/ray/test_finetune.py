"""Fine-tuning on a real Ray: the parts of the data, a run of the program end to end and gone on with, an archive's own colours."""

import itertools
import json
import re
import shutil
import signal
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from colorize.archive.colors import Survey, load_colors, survey
from colorize.archive.listing import list_archive
from colorize.cli.main import main
from colorize.cluster import ClusterInfo
from colorize.data.dataset import LabDataset
from colorize.data.parts import FEWEST, LEAST, Parts, drawn, load_parts
from colorize.errors import DataError
from colorize.imaging.formats import open_scan
from colorize.model.coloring import colorize_scan
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.metrics import SCORES
from colorize.storage.place import LocalPlace
from tests.models import small_model
from tests.pictures import encoded, grey_scene, sepia_scene
from tests.processes import PROGRAM

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

COUNT, SIZE = 60, 32


def meadow(seed: int) -> npt.NDArray[np.uint8]:
    """A colour picture (48, 64, 3) of a small world: a blue sky above violet ground, what is bright is orange."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:48, 0:64]
    horizon = random.integers(16, 32)
    light = 90 + 60 * random.random() + random.normal(0, 4, (48, 64))
    rgb_hwc = np.where((y < horizon)[..., None], [0.6, 0.9, 1.5], [1.1, 0.6, 1.3]) * light[..., None]
    for _ in range(3):
        cy, cx = random.integers(0, 48), random.integers(0, 64)
        rgb_hwc[(y - cy) ** 2 + (x - cx) ** 2 < 50] = (250, 160, 40)
    return np.clip(rgb_hwc, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of the small world, 2 of them twice, and 3 grey ones."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        (folder / f"{number:02}.png").write_bytes(encoded(meadow(number), "PNG"))
    for number in (3, 4):
        (folder / f"copy-{number}.png").write_bytes((folder / f"{number:02}.png").read_bytes())
    for number in range(3):
        (folder / f"grey-{number}.png").write_bytes(encoded(grey_scene(48 + number), "PNG"))
    return folder


def names(dataset: LabDataset) -> set[str]:
    found = {str(row["name"]) for row in dataset.dataset.select_columns(["name"]).take_all()}
    assert len(found) == dataset.pictures
    return found


def sides(parts: Parts) -> tuple[set[str], set[str], set[str]]:
    return names(parts.train), names(parts.choice), names(parts.held_out)


def test_every_colour_picture_is_in_one_part_and_copies_are_in_the_same(ray_cluster: ClusterInfo, photos: Path) -> None:
    parts = load_parts(f"folder:{photos}", size=SIZE, limit=None)
    train, choice, held_out = sides(parts)
    assert train | choice | held_out == {path.name for path in photos.iterdir() if not path.name.startswith("grey")}
    assert len(train) + len(choice) + len(held_out) == COUNT + 2
    assert len(choice) >= LEAST
    assert 5 <= len(held_out) <= 25
    assert parts.train.dropped_grey == 3
    for number in (3, 4):
        assert sum({f"{number:02}.png", f"copy-{number}.png"} <= side for side in (train, choice, held_out)) == 1


@pytest.mark.slow
def test_the_parts_are_the_same_again_whatever_the_files_are_called(ray_cluster: ClusterInfo, photos: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "other" / "deeper"
    renamed.mkdir(parents=True)
    for number, path in enumerate(sorted(photos.iterdir())):
        (renamed / f"{17 * number % 71}-{path.name}").write_bytes(path.read_bytes())
    before, after = (sides(load_parts(f"folder:{folder}", size=SIZE, limit=None)) for folder in (photos, tmp_path / "other"))
    assert before == tuple({name.partition("-")[2] for name in side} for side in after)


@pytest.mark.slow
def test_a_test_part_of_its_own_is_the_held_out_part(ray_cluster: ClusterInfo, photos: Path, tmp_path: Path) -> None:
    for part, numbers in (("train", range(20)), ("val", range(20, 26))):
        (tmp_path / part).mkdir()
        for number in numbers:
            shutil.copy(photos / f"{number:02}.png", tmp_path / part)
    train, choice, held_out = sides(load_parts(f"folder:{tmp_path}", size=SIZE, limit=None))
    assert held_out == {f"val/{number:02}.png" for number in range(20, 26)}
    assert train | choice == {f"train/{number:02}.png" for number in range(20)}
    sample = load_parts("cifar10-sample", size=None, limit=100)
    assert sample.held_out.pictures == 500
    assert sample.train.pictures + sample.choice.pictures <= 100


def test_too_few_pictures(ray_cluster: ClusterInfo, photos: Path, tmp_path: Path) -> None:
    for path in sorted(photos.iterdir())[: FEWEST - 1]:
        shutil.copy(path, tmp_path)
    shutil.copy(photos / "grey-0.png", tmp_path)
    with pytest.raises(DataError, match=rf": {FEWEST - 1} colour pictures, 1 grey ones left out: fine-tuning needs {FEWEST} at least"):
        load_parts(f"folder:{tmp_path}", size=SIZE, limit=None)


def test_what_one_draws_by_says_nothing_of_the_other(ray_cluster: ClusterInfo, photos: Path) -> None:
    whole = load_parts(f"folder:{photos}", size=SIZE, limit=None).train
    assert names(drawn(whole, "one", 3)[1]) != names(drawn(whole, "other", 3)[1])


@pytest.mark.slow
def test_a_run_end_to_end_with_what_it_leaves(
    ray_cluster: ClusterInfo, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = f"--data folder:{photos} --size {SIZE} --epochs 8 --learning-rate 0.002 --run {run} --workers 2"
    assert main(["finetune", "cifar10", *options.split()]) == 0
    out = capsys.readouterr().out
    told = json.loads((run / "finetune.json").read_text())
    assert told["better"]
    assert told["psnr_gain"] == pytest.approx(told["after"]["psnr_mean"] - told["before"]["psnr_mean"])
    assert f"better: {told['psnr_gain']:+.2f} dB PSNR on {told['pictures']['held_out']} held-out pictures" in out
    assert re.search(r"^after +\d", out, re.MULTILINE)
    assert list(told["after"]) == list(SCORES)
    assert told["bins"] == {"before": len(load_model("cifar10").palette), "after": len(load_model(run).palette)}
    base, tuned = load_model(run / "base.safetensors"), load_model(run)
    assert told["base_sha256"] == base.card.weights_sha256 == tuned.card.training["base"]["sha256"]
    assert tuned.card.training["data"] == f"folder:{photos}"
    assert tuned.card.metrics["metrics"] == told["after"]
    assert tuned.card.working_size == base.card.working_size
    assert tuned.card.dial != base.card.dial
    assert main(["finetune", "--resume", str(run)]) == 1
    assert "this run is finished" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", f"folder:{photos}"]) == 0
    assert f"seen  {run} was tuned on most of these" in capsys.readouterr().out
    assert main(["evaluate", "cifar10", "--data", f"folder:{photos}"]) == 0
    assert "seen" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_goes_on_without_its_model_and_is_judged_once(
    ray_cluster: ClusterInfo, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run = tmp_path / "small.safetensors", tmp_path / "run"
    small_model(working_size=SIZE).save(model)
    options = f"--data folder:{photos} --size {SIZE} --epochs 20 --run {run} --workers 1 --address local"
    program = subprocess.Popen([PROGRAM, "finetune", model, *options.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    lines = list(itertools.takewhile(lambda line: not line.startswith("epoch 1/20"), program.stdout))
    program.kill()
    _, errors = program.communicate()
    assert program.returncode == -signal.SIGKILL, (lines, errors)
    model.unlink()
    assert main(["train", "--resume", str(run)]) == 1
    assert "a fine-tuning run: go on with colorize finetune --resume" in capsys.readouterr().err
    assert main(["adapt", "--resume", str(run)]) == 1
    assert "go on with colorize finetune --resume" in capsys.readouterr().err
    assert main(["finetune", "--resume", str(run)]) in (0, 1)
    epochs = [int(found[1]) for found in re.finditer(r"^epoch (\d+)/20", capsys.readouterr().out, re.MULTILINE)]
    assert epochs == list(range(epochs[0], 21))
    assert epochs[0] > 1, "further ones may have been kept before the kill"
    assert [row["epoch"] for row in json.loads((run / "history.json").read_text())] == list(range(1, 21))
    result = json.loads((run / "finetune.json").read_text())
    (run / "finetune.json").unlink()
    assert main(["finetune", "--resume", str(run)]) in (0, 1)
    assert "epoch" not in capsys.readouterr().out.replace("epochs", "").replace("best epoch", ""), "only judged again"
    again = json.loads((run / "finetune.json").read_text())
    assert again["after"] == pytest.approx(result["after"], rel=1e-6)
    assert again["before"] == pytest.approx(result["before"], rel=1e-6)


@pytest.mark.slow
def test_the_smallest_set_there_may_be(ray_cluster: ClusterInfo, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few").mkdir()
    for number in range(FEWEST):
        shutil.copy(photos / f"{number:02}.png", tmp_path / "few")
    small_model(working_size=SIZE).save(tmp_path / "small.safetensors")
    run = tmp_path / "run"
    options = f"--data folder:{tmp_path / 'few'} --size {SIZE} --epochs 2 --run {run} --workers 2"
    code = main(["finetune", str(tmp_path / "small.safetensors"), *options.split()])
    told = json.loads((run / "finetune.json").read_text())
    assert code == (0 if told["better"] else 1)
    assert sum(told["pictures"].values()) == FEWEST
    assert min(told["pictures"].values()) >= LEAST
    assert load_model(run).card.training["config"]["batch_size"] <= told["pictures"]["train"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Scans at three depths: 24 in colour in three formats, 8 grey or toned, 1 that this program has coloured, 2 broken, a text."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "a/b").mkdir(parents=True)
    kinds = (("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"))
    for number in range(24):
        kind, suffix = kinds[number % 3]
        (folder / ("", "a", "a/b")[number % 3] / f"colour-{number:02}.{suffix}").write_bytes(encoded(meadow(100 + number), kind))
    for number in range(4):
        (folder / f"grey-{number}.jpg").write_bytes(encoded(grey_scene(64 + number), "JPEG"))
        (folder / f"a/sepia-{number}.png").write_bytes(encoded(sepia_scene(64 + number), "PNG"))
    grey = open_scan(encoded(grey_scene(100, 120), "JPEG"), name="grey")
    (folder / "made.jpg").write_bytes(colorize_scan(grey, Colorizer(load_model("cifar10"))))
    (folder / "broken.png").write_bytes(encoded(meadow(1), "PNG")[:200])
    (folder / "a/letter.jpg").write_text("a letter")
    (folder / "notes.txt").write_text("mine")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_colour_is_told_from_toned_and_from_what_this_program_made(ray_cluster: ClusterInfo, archive: Path) -> None:
    place = LocalPlace(archive, "archive")
    seen: list[tuple[int, int]] = []
    found = survey(place, list_archive(place, "").pictures, lambda *now: seen.append(now))
    assert [Path(path).name[:6] for path, _ in found.colored] == ["colour"] * 24
    assert (found.looked_at, found.made, seen[-1]) == (35, 1, (35, 24))
    assert [path for path, _ in found.unreadable] == ["a/letter.jpg", "broken.png"]
    assert found.unreadable[0][1] == "is text, not a picture"
    rows, unreadable = load_colors(place, [*found.colored, ("gone.jpg", 0)], SIZE)
    assert [path for path, _ in unreadable] == ["gone.jpg"]
    by_name = {row["name"]: row for row in rows.take_all()}
    assert len(by_name) == 24
    for name, row in by_name.items():
        number = int(Path(name).stem[-2:])
        small = Image.open(BytesIO(encoded(meadow(100 + number)[:, 8:56], "PNG"))).resize((SIZE, SIZE), Image.Resampling.BOX)
        truth_3hw = np.asarray(small, np.float32).transpose(2, 0, 1)
        assert row["rgb"].shape == (3, SIZE, SIZE)
        assert np.abs(row["rgb"] - truth_3hw).mean() < 12, name


def test_what_was_found_is_written_and_read() -> None:
    found = Survey(looked_at=3, colored=[("a", 0), ("b", 2)], made=0, unreadable=[("c", "why")])
    assert Survey.from_json(found.to_json().encode(), "found.json") == found


@pytest.mark.slow
def test_adapt_end_to_end_never_writes_into_the_archive(
    ray_cluster: ClusterInfo, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(archive)
    small_model(working_size=SIZE).save(tmp_path / "small.safetensors")
    run = tmp_path / "run"
    options = f"--model {tmp_path / 'small.safetensors'} --size {SIZE} --epochs 2 --run {run}"
    code = main(["adapt", str(archive), *options.split()])
    out, err = capsys.readouterr()
    assert f"{archive}: 24 of 35 pictures are in colour, 1 left out that this program has coloured, 2 unreadable" in out
    assert "colorize: a/letter.jpg: is text, not a picture" in err
    told = json.loads((run / "finetune.json").read_text())
    assert code == (0 if told["better"] else 1)
    assert sum(told["pictures"].values()) == 24
    assert told["bins"]["after"] > told["bins"]["before"], "the small palette ends at 40, these blues do not"
    assert load_model(run).card.training["data"] == f"archive:{archive}"
    (run / "finetune.json").unlink()
    assert main(["finetune", "--resume", str(run)]) == 1
    assert f"go on with colorize adapt --resume {run}" in capsys.readouterr().err
    (run / "pictures.json").unlink()  # as where the program is killed as it begins
    assert main(["adapt", "--resume", str(run)]) == code
    assert "24 of 35" in capsys.readouterr().out
    assert (run / "pictures.json").is_file()
    assert snapshot(archive) == before


@pytest.mark.slow
def test_an_archive_with_too_little_colour(ray_cluster: ClusterInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/one.png").write_bytes(encoded(meadow(1), "PNG"))
    (tmp_path / "scans/two.png").write_bytes(encoded(grey_scene(), "PNG"))
    assert main(["adapt", str(tmp_path / "scans"), "--run", str(tmp_path / "run")]) == 1
    assert "1 of its 2 pictures are in colour: fine-tuning needs 20 at least" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
