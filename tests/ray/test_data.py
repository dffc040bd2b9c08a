"""Sources through a real Ray: every picture arrives once, converted, or is counted with its reason."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pyarrow import fs

from colorize.cli.display import describe
from colorize.cluster import ClusterInfo
from colorize.data import cifar10
from colorize.data.dataset import MAX_BLOCK_ROWS, LabDataset, load_dataset
from colorize.errors import ConfigError, DataError
from colorize.imaging.colorspace import rgb_to_lab

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def rows(loaded: LabDataset) -> dict[str, np.ndarray]:
    """All rows as columns, sorted by name."""
    batches = list(loaded.dataset.iter_batches(batch_size=None))
    columns = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    order = np.argsort(columns["name"])
    return {key: column[order] for key, column in columns.items()}


def colors(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(rgb_hwc: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_hwc).save(buffer, form)
    return buffer.getvalue()


def check_lab(columns: dict[str, np.ndarray]) -> None:
    lab_b3hw = rgb_to_lab(torch.from_numpy(columns["rgb"].copy())).numpy()
    assert np.abs(columns["L"] - lab_b3hw[:, :1]).max() <= 0.035
    assert np.abs(columns["ab"] - lab_b3hw[:, 1:]).max() <= 0.035


def test_the_test_split_is_whole(ray_cluster: ClusterInfo) -> None:
    loaded = load_dataset("cifar10-sample", split="test")
    columns = rows(loaded)
    records = cifar10.read_sample("test")
    assert loaded.pictures == len(columns["name"]) == 500
    assert (loaded.dropped_grey, loaded.unreadable, loaded.height, loaded.width) == (0, (), 32, 32)
    assert loaded.class_names == cifar10.CLASS_NAMES
    assert columns["name"].tolist() == [f"test/{number:05d}" for number in range(500)]
    assert np.array_equal(columns["label"], records[:, 0])
    assert np.array_equal(columns["rgb"].reshape(500, -1), records[:, 1:])
    assert {key: (column.dtype, column.shape[1:]) for key, column in columns.items() if key != "name"} == {
        "L": (np.float16, (1, 32, 32)),
        "ab": (np.float16, (2, 32, 32)),
        "rgb": (np.uint8, (3, 32, 32)),
        "label": (np.int64, ()),
    }
    check_lab(columns)


def test_grey_is_dropped_from_training_and_counted() -> None:
    loaded = load_dataset("cifar10-sample", split="train")
    columns = rows(loaded)
    assert 0 < loaded.dropped_grey < 100
    assert loaded.pictures == len(set(columns["name"])) == 2_000 - loaded.dropped_grey
    assert 2 <= loaded.dataset.num_blocks() <= 16
    assert loaded.dataset.num_blocks() * MAX_BLOCK_ROWS >= loaded.pictures


def test_a_limit_takes_the_same_pictures_each_time() -> None:
    first, second = (rows(load_dataset("cifar10-sample", split="test", limit=30)) for _ in range(2))
    assert first["name"].tolist() == second["name"].tolist() == [f"test/{number:05d}" for number in range(30)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 64}, "size 64: the pictures of cifar10-sample are 32×32"),
        ({"limit": 0}, "limit 0: must be 1 or more"),
        ({"size": 0}, "size 0: must be 1 or more"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_dataset("cifar10-sample", split="test", **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_folder_counts_what_cannot_be_read(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "train" / f"{number}" / "a.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded(colors(number, 40 + number, 60)))
    for name, content in {
        "text.jpg": b"I am a text file",
        "zero.png": b"",
        "cut.jpg": encoded(colors(1, 99, 99), "JPEG")[:2_000],
        "cut.png": encoded(colors(1, 99, 99))[:9_000],
        "grey.png": encoded(np.full((50, 50), 99, np.uint8)),
        "one.png": encoded(colors(2, 1, 1)),
    }.items():
        (tmp_path / "train" / name).write_bytes(content)
    (tmp_path / "train" / "long.png").write_bytes(encoded(colors(3, 3, 20_000)))
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "v.jpg").write_bytes(encoded(np.full((30, 90), 50, np.uint8), "JPEG"))
    for name in ("a.tif", "b.webp", "notes.txt", "c.jpg", "more/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not read")

    loaded = load_dataset(f"folder:{tmp_path}", split="train", size=24)
    columns = rows(loaded)
    expected = sorted([f"train/{number}/a.png" for number in range(12)] + ["train/long.png"])
    assert columns["name"].tolist() == expected
    assert loaded.pictures == 13
    assert loaded.dropped_grey == 2  # grey.png, and one.png, whose single colour is no spread
    assert [name for name, _ in loaded.unreadable] == ["train/cut.jpg", "train/cut.png", "train/text.jpg", "train/zero.png"]
    assert all(reason for _, reason in loaded.unreadable)
    assert columns["rgb"].shape == (13, 3, 24, 24)
    assert set(columns["label"]) == {-1}
    assert loaded.class_names is None
    assert describe(loaded).endswith(", 2 of other formats left out (only JPEG and PNG are read), 2 files beside train and test left out")
    check_lab(columns)

    judged = load_dataset(f"folder:{tmp_path}", split="test", size=24)
    assert (judged.pictures, judged.dropped_grey, judged.other_formats, judged.outside) == (1, 0, 0, 0)


def test_folder_in_which_nothing_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "text.jpg").write_bytes(b"text")
    (tmp_path / "train" / "zero.png").write_bytes(b"")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "text.jpg").write_bytes(b"text")
    spec = f"folder:{tmp_path}"
    with pytest.raises(DataError, match=r"none of its pictures can be used: 2 unreadable \(as train/text\.jpg: .+\)"):
        load_dataset(spec, split="train")
    for name in ("text.jpg", "zero.png"):
        (tmp_path / "train" / name).write_bytes(encoded(np.full((9, 9, 3), 7, np.uint8)))
    with pytest.raises(DataError, match=r"all of its pictures are grey: there is no colour to learn from"):
        load_dataset(spec, split="train")


def test_parquet(tmp_path: Path) -> None:
    images = [{"bytes": encoded(colors(number, 20, 30)), "path": None} for number in range(25)]
    images[3] = {"bytes": None, "path": "elsewhere.jpg"}
    images[4] = {"bytes": b"no picture", "path": None}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array([n % 4 for n in range(25)], pa.int32())})
    pq.write_table(table, tmp_path / "train-0.parquet", row_group_size=7)
    texts = pa.array(["cat", "dog"] * 2 + [None])
    pq.write_table(table.slice(10, 5).set_column(1, "label", texts), tmp_path / "test-0.parquet")

    loaded = load_dataset(f"parquet:{tmp_path}", split="train", size=16)
    columns = rows(loaded)
    assert loaded.pictures == 23
    assert dict(loaded.unreadable).keys() == {"train-0.parquet#3", "train-0.parquet#4"}
    numbers = [int(name.removeprefix("train-0.parquet#")) for name in columns["name"]]
    assert sorted(numbers) == [number for number in range(25) if number not in (3, 4)]
    assert columns["label"].tolist() == [number % 4 for number in numbers]
    assert loaded.class_names == ("0", "1", "2", "3")
    judged = load_dataset(f"parquet:{tmp_path}", split="test", size=16, limit=2)
    assert (judged.pictures, set(rows(judged)["label"]), judged.class_names) == (2, {-1}, None)
    assert describe(judged).endswith(", labels left out (only numbers that every file has are read; these are string)")


@pytest.mark.slow
def test_pictures_in_a_bucket(bucket: Callable[[str], str], tmp_path: Path) -> None:
    """The workers open them: they get the address with their work, and have credentials by their environment."""
    store, _ = fs.FileSystem.from_uri(bucket(""))

    def url(folder: str) -> str:
        return bucket(folder).replace("user:word@", "")

    expected = {f"deep/{number:02}.png": colors(number, 24, 24) for number in range(8)}
    for name, rgb_hwc in expected.items():
        with store.open_output_stream(f"pictures/my scans/test/{name}") as file:
            file.write(encoded(rgb_hwc))
    with store.open_output_stream("pictures/my scans/test/damaged.png") as file:
        file.write(encoded(colors(99, 24, 24))[:200])
    images = [{"bytes": encoded(rgb_hwc), "path": name} for name, rgb_hwc in expected.items()]
    pq.write_table(pa.table({"image": images}), "pictures/rows/test-0.parquet", filesystem=store)

    loaded = load_dataset(f"folder:{url('my scans')}", split="test", size=24)
    columns = rows(loaded)
    assert columns["name"].tolist() == [f"test/{name}" for name in expected]
    assert np.array_equal(columns["rgb"], np.stack([rgb_hwc.transpose(2, 0, 1) for rgb_hwc in expected.values()]))
    assert [name for name, _ in loaded.unreadable] == ["test/damaged.png"]

    loaded = load_dataset(f"parquet:{url('rows')}", split="test", size=24)
    assert np.array_equal(rows(loaded)["rgb"], columns["rgb"])
    with pytest.raises(DataError, match="no such file or folder"):
        load_dataset(f"folder:{url('none')}", split="test")


def test_nothing_falls_back_to_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.data.download.CIFAR10_URL", "https://127.0.0.1:1/cifar-10-binary.tar.gz")
    with pytest.raises(DataError, match=r"cannot be downloaded: .* use cifar10:PATH"):
        load_dataset("cifar10", split="train", cache=tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        load_dataset(f"cifar10:{tmp_path / 'nowhere'}", split="train")
