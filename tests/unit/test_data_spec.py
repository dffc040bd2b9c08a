"""Specifications of data sources, and which files and rows they mean; all without a cluster."""

import io
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from colorize.archive import listing
from colorize.data import parquet, photos, splits
from colorize.data.files import PictureFiles, find_files
from colorize.data.lab import is_grey, to_lab_batch
from colorize.data.sources import Source, check_apart, parse_source
from colorize.errors import DataError, PictureError
from colorize.imaging.colorspace import rgb_to_lab

PATHS = st.text(min_size=1).filter(str.strip)


@given(kind=st.sampled_from(["cifar10", "folder", "parquet"]), path=PATHS)
def test_a_path_is_kept_as_it_was_written(kind: str, path: str) -> None:
    source = parse_source(f"{kind}:{path}")
    assert (source.kind, source.path) == (kind, path)
    assert parse_source(str(source)) == source


@pytest.mark.parametrize("spec", ["cifar10-sample", "cifar10"])
def test_sources_without_a_path(spec: str) -> None:
    assert parse_source(spec) == Source(kind=spec, path=None)  # type: ignore[arg-type]
    assert str(parse_source(spec)) == spec


@pytest.mark.parametrize("spec", ["folder:s3://KEY:WO/RD@bucket/a", "parquet:abfs://c@x/b?account_key=WO/RD", "s3://KEY:WO/RD@bucket/a"])
def test_a_secret_is_refused_and_not_repeated(spec: str) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*holds a secret[^\n]*AWS_SECRET_ACCESS_KEY[^\n]*$") as caught:
        parse_source(spec)
    assert not {"KEY:", "WO", "RD"} & set(re.findall(r"KEY:|WO|RD", str(caught.value)))


def test_a_place_that_cannot_be_listed_is_told_without_its_secrets() -> None:
    with pytest.raises(DataError, match=r"^s3://bucket/a: cannot be listed: ") as caught:
        find_files("folder:x", "s3://KEY:WORD@bucket/a?wrong=1")
    assert "WORD" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("{}/photos/cats", "{}/photos"),
        ("{}/photos/cats/", "{}/photos/../photos/."),
        ("{}/link", "{}/photos"),
        ("file://{}/photos/cats", "{}/photos/"),
        ("{}/photos/a.parquet", "{}/photos"),
        ("s3://bucket/photos/cats/", "s3://bucket/photos//"),
        ("s3://bucket/photos", "s3://bucket?region=x"),
        ("gcs://bucket/a%20b/c", "gs://bucket/a b"),
        ("photos/cats", "photos"),
    ],
)
def test_sources_within_one_another_are_refused(tmp_path: Path, kind: str, inner: str, outer: str) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos/cats")
    inner, outer = (f"{kind}:{path.format(tmp_path)}" for path in (inner, outer))
    for order in ([inner, outer], [outer, inner, inner]):
        with pytest.raises(DataError, match=rf"^--data {re.escape(inner)}: lies within {re.escape(outer)}: [^\n]*$"):
            check_apart(order)


def test_sources_that_lie_apart(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to("photos")
    (tmp_path / "loop").symlink_to("loop")
    check_apart([f"folder:{tmp_path}/{name}" for name in ("photos", "photos/", "again", "photos2", "loop", "loop")])
    check_apart([f"folder:{tmp_path}/photos", f"parquet:{tmp_path}/photos/cats"])
    check_apart(["parquet:abfs://a@account/x", "parquet:abfs://b@account/x/y", "parquet:s3://a/x", "parquet:s3://a/xy", "parquet:/a/x"])


@given(st.text())
def test_anything_else_is_an_error_of_one_line(spec: str) -> None:
    if spec not in ("cifar10-sample", "cifar10") and not spec.startswith(("cifar10:", "folder:", "parquet:")):
        with pytest.raises(DataError, match=r"^[^\n]*: write [^\n]*$"):
            parse_source(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "'': no such data source: write cifar10-sample, cifar10, cifar10:PATH, folder:PATH_OR_BUCKET or parquet:"),
        ("imagenet", "'imagenet': no such data source"),
        ("CIFAR10", "'CIFAR10': no such data source"),
        ("/data/photos", "'/data/photos': no such data source"),
        ("folder", "'folder': a path is missing: write folder:PATH"),
        ("parquet:  ", "a path is missing: write parquet:PATH"),
        ("cifar10:", "a path is missing: write cifar10:PATH"),
        ("cifar10-sample:/x", "the bundled sample takes no path"),
    ],
)
def test_wrong_specifications(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_source(spec)
    assert message in str(caught.value)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def find(root: Path | str) -> PictureFiles:
    return find_files(f"folder:{root}", str(root))


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"the folder is empty"):
        find(tmp_path)
    with pytest.raises(DataError, match=r"no pictures in it \(\.jpg, \.jpeg, \.png\), only 2 other files"):
        splits.pictures_of(find(touch(tmp_path, "a.txt", "deep/b.pdf")), "train")


def test_hidden_files_are_left_out_and_deep_ones_found(tmp_path: Path) -> None:
    place = find(touch(tmp_path, ".DS_Store", ".git/a.jpg", "a/.thumbs/b.jpg", "a/b/c.JPG", "d.png"))
    assert place.names == ("a/b/c.JPG", "d.png")
    assert place.path("d.png") == str(tmp_path / "d.png")


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/deep/b.jpg", "out/c.jpg")
    (tmp_path / "in" / "self").symlink_to(".")
    (tmp_path / "in" / "circle").symlink_to("circle")
    (tmp_path / "in" / "deep" / "up").symlink_to("../..")
    (tmp_path / "in" / "train").symlink_to(tmp_path / "out")
    assert find(tmp_path / "in").names == ("a.jpg", "circle", "deep/b.jpg", "deep/up/out/c.jpg", "train/c.jpg")


def test_a_link_to_nothing_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (touch(tmp_path, "a.jpg") / "gone.jpg").symlink_to("nowhere.jpg")
    place = find(tmp_path)
    _, _, _, unreadable = photos.read_squares(photos.open_pictures(place, ["gone.jpg"]), 4)
    assert place.names == ("a.jpg", "gone.jpg")
    assert "cannot be read" in unreadable["gone.jpg"]


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encoded(np.zeros((9, 9, 3), np.uint8))
    for name, head in (("film.jpg", b"\0\0\0\x18ftypmp42"), ("text.png", b"a,b" * 200), ("huge.png", picture)):
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, 10**13 if name == "huge.png" else 10**12)
    monkeypatch.setattr(photos, "LARGE_BYTES", 3)
    (tmp_path / "good.png").write_bytes(picture)
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "no.png").write_bytes(b"text")
    files = photos.open_pictures(find(tmp_path), ["film.jpg", "text.png", "huge.png", "good.png", "a.png", "no.png"])
    _, _, names, unreadable = photos.read_squares(files, 4)
    assert names == ["good.png"]
    assert unreadable == {
        "film.jpg": "is no picture of a known format; JPEG and PNG are read so far",
        "text.png": "is text, not a picture",
        "huge.png": "has 10,000,000,000,000 bytes; files of up to 1,000,000,000 are read",
        "a.png": "is text, not a picture",
        "no.png": "is text, not a picture",
    }


def test_names_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    for name in (b"caf\xe9.jpg", b"d\xe9/a.jpg"):
        folder = tmp_path / str(len(name))
        touch(folder, "b.jpg", os.fsdecode(name))
        with pytest.raises(DataError, match=r"/\d+: (caf\?\.jpg|d\?/a\.jpg): its name is not valid UTF-8: rename it$"):
            find(folder)
    touch(tmp_path / "good", "café.jpg", "日本.png", "back\\slash.jpg")
    assert len(find(tmp_path / "good").names) == 3
    with pytest.raises(DataError, match=r"\?: cannot be listed: "):
        find(os.fsdecode(bytes(tmp_path) + b"/\xff"))


def test_a_uri_names_the_same_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg", "c.png")
    place = find(f"file://{tmp_path}")
    assert place.names == find(tmp_path).names
    assert find(f"file://localhost{tmp_path}/%61").names == ("b.jpg",)
    assert pickle.loads(pickle.dumps(place.filesystem)).get_file_info(place.path("c.png")).size == 1


def test_a_single_file(tmp_path: Path) -> None:
    place = find(touch(tmp_path, "a.jpg", "b.jpg") / "a.jpg")
    assert place.names == ("a.jpg",)


def test_unknown_bucket_scheme() -> None:
    with pytest.raises(DataError, match=r"nonsense://x: cannot be listed"):
        find("nonsense://x")


def test_split_by_folders(tmp_path: Path) -> None:
    place = find(touch(tmp_path, "train/a.jpg", "train/cats/b.jpg", "validation/c.jpg", "Test/d.jpg", "other/e.jpg", "f.jpg"))
    assert sorted(splits.pictures_of(place, "train")) == ["train/a.jpg", "train/cats/b.jpg"]
    assert sorted(splits.pictures_of(place, "test")) == ["Test/d.jpg", "validation/c.jpg"]


def test_split_below_the_folder_that_holds_all_pictures(tmp_path: Path) -> None:
    files = ("train/a.jpg", "train/test/b.jpg", "test/c.jpg", "d.jpg", "deep/train/e.jpg", "test/f.tif")
    place = find(touch(tmp_path, "README.txt", "g.tif", *(f"photos/set/{name}" for name in files)))
    assert sorted(splits.pictures_of(place, "train")) == ["photos/set/train/a.jpg", "photos/set/train/test/b.jpg"]
    assert splits.pictures_of(place, "test") == ["photos/set/test/c.jpg"]
    assert splits.has_test_folder(place)
    assert splits.outside_of(place, "train") == 2
    assert (splits.others_of(place, "train"), splits.others_of(place, "test")) == (1, 1)


def test_a_folder_that_names_a_split_is_not_looked_into(tmp_path: Path) -> None:
    place = find(touch(tmp_path, *(f"set/train/test/{number}.jpg" for number in range(9)), "set/train/b.jpg"))
    assert not splits.has_test_folder(place)
    assert len(splits.pictures_of(place, "train")) == 9
    place = find(touch(tmp_path / "other", "locomotives/train/a.jpg", "cars/b.jpg", "cars/test/c.jpg"))
    assert not splits.has_test_folder(place)


def test_pictures_of_formats_that_are_not_read_are_counted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.jpg",
        "b.png",
        "notes.txt",
        *(f"deep/{number}.TIF" for number in range(30)),
        *(f"{number}.webp" for number in range(30)),
    )
    place = find(tmp_path)
    assert splits.others_of(place, "train") + splits.others_of(place, "test") == splits.others_of(place, "all") == 60
    assert 0 < splits.others_of(place, "test") < 10
    place = find(touch(tmp_path, "val/c.jpg"))
    assert (splits.others_of(place, "train"), splits.others_of(place, "test")) == (60, 0)
    place = find(touch(tmp_path, "val/c.heic"))
    assert (splits.others_of(place, "train"), splits.others_of(place, "test")) == (60, 1)


def test_every_picture_that_an_archive_knows_is_read_or_counted() -> None:
    assert {*splits.PICTURE_SUFFIXES, *splits.OTHER_SUFFIXES} == listing.PICTURE_SUFFIXES | listing.UNSUPPORTED_SUFFIXES


def test_split_with_only_a_test_folder(tmp_path: Path) -> None:
    place = find(touch(tmp_path, "val/c.jpg", "other/e.jpg", "f.jpg"))
    assert sorted(splits.pictures_of(place, "train")) == ["f.jpg", "other/e.jpg"]
    assert splits.pictures_of(place, "test") == ["val/c.jpg"]


@given(st.sets(st.from_regex(r"[a-z]{1,8}/[a-z0-9]{1,12}\.(jpg|png)", fullmatch=True), min_size=2, max_size=200))
def test_hashed_split_loses_nothing_and_overlaps_nowhere(names: set[str]) -> None:
    names = {name for name in names if name.split("/")[0] not in ("train", *splits.TEST_NAMES)}
    if len(names) < 2:
        return
    place = PictureFiles(spec="folder:x", filesystem=pa.fs.LocalFileSystem(), root="/x", names=tuple(sorted(names)))
    test = splits.pictures_of(place, "test")
    assert len(test) >= 1
    if len(test) < len(names):
        train = splits.pictures_of(place, "train")
        assert set(train) | set(test) == names
        assert not set(train) & set(test)


def test_hashed_split_sends_one_in_twenty(tmp_path: Path) -> None:
    place = PictureFiles(
        spec="folder:x", filesystem=pa.fs.LocalFileSystem(), root="/x", names=tuple(f"{number}.jpg" for number in range(10_000))
    )
    assert 400 < len(splits.pictures_of(place, "test")) < 600


def test_one_picture_cannot_be_split(tmp_path: Path) -> None:
    place = find(touch(tmp_path, "a.jpg"))
    assert splits.pictures_of(place, "test") == ["a.jpg"]
    with pytest.raises(DataError, match=r"no pictures for the train split"):
        splits.pictures_of(place, "train")


def encoded(rgb_hwc: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_hwc).save(buffer, form)
    return buffer.getvalue()


def write_parquet(path: Path, count: int, *, labels: bool = False, names: list[str] | None = None, group: int = 10) -> Path:
    images = [{"bytes": encoded(np.full((4, 4, 3), number % 256, np.uint8)), "path": f"{number}.png"} for number in range(count)]
    columns = {"image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels:
        columns["label"] = pa.array([number % 3 for number in range(count)], pa.int64())
    table = pa.table(columns)
    if names:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def rows_of(split: parquet.ParquetSplit) -> list[tuple[str, int]]:
    return [(part.name, part.first + row) for part in split.parts for row in part.rows]


def test_parquet_split_by_file_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", 25)
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", 7)
    place = find(tmp_path)
    train = parquet.parquet_rows(place, "train", None)
    assert [(part.row_group, part.first, len(part.rows)) for part in train.parts] == [(0, 0, 10), (1, 10, 10), (2, 20, 5)]
    assert not train.has_labels
    assert train.class_names is None
    assert rows_of(parquet.parquet_rows(place, "test", None)) == [("validation-00000-of-00001.parquet", row) for row in range(7)]
    assert train.outside == 0


def test_parquet_split_by_folders(tmp_path: Path) -> None:
    """As the Hub converts a data set; without it, the test would be trained on."""
    for name in ("default/train/0000", "default/test/0000", "default/test/train-extra"):
        write_parquet(tmp_path / f"{name}.parquet", 3)
    place = find(tmp_path)
    train, test = (rows_of(parquet.parquet_rows(place, split, None)) for split in ("train", "test"))
    assert {name for name, _ in train} == {"default/test/train-extra.parquet", "default/train/0000.parquet"}
    assert {name for name, _ in test} == {"default/test/0000.parquet"}


def test_files_of_no_split_are_counted(tmp_path: Path) -> None:
    for name in ("train-0", "test-0", "extra-0"):
        write_parquet(tmp_path / f"{name}.parquet", 3)
    assert parquet.parquet_rows(find(tmp_path), "train", None).outside == 1
    pictures = find(touch(tmp_path / "a", "train/x.jpg", "val/y.jpg", "z.jpg", "more/z.png", "notes.txt"))
    assert splits.outside_of(pictures, "train") == 2
    assert splits.outside_of(find(touch(tmp_path / "b", "x.jpg", "more/z.png", "val/y.jpg")), "train") == 0


def test_parquet_split_by_hash(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", 200)
    train, test = (rows_of(parquet.parquet_rows(find(tmp_path), split, None)) for split in ("train", "test"))
    assert sorted(train + test) == [("train-0.parquet", row) for row in range(200)]
    assert 1 <= len(test) <= 30


@pytest.mark.parametrize("limit", [1, 7, 24, 25, 1000])
def test_parquet_limit_is_spread_evenly(tmp_path: Path, limit: int) -> None:
    write_parquet(tmp_path / "train-0.parquet", 25)
    write_parquet(tmp_path / "test-0.parquet", 1)
    rows = [row for _, row in rows_of(parquet.parquet_rows(find(tmp_path), "train", limit))]
    assert len(rows) == len(set(rows)) == min(limit, 25)
    assert max(np.diff([*rows, 25])) <= -(-25 // limit)


def test_parquet_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", 5, labels=True, names=["cat", "dog", "eel"])
    write_parquet(tmp_path / "test.parquet", 5, labels=True)
    place = find(tmp_path)
    train, test = parquet.parquet_rows(place, "train", None), parquet.parquet_rows(place, "test", None)
    assert train.class_names == ("cat", "dog", "eel")
    assert test.has_labels
    assert test.class_names is None
    read = list(parquet.open_parquet_part(place, train.parts[0], labels=True))
    assert [(name, label) for name, _, label in read] == [(f"train.parquet#{row}", row % 3) for row in range(5)]
    assert photos.square_of(read[4][1], "x", 4).tolist() == np.full((3, 4, 4), 4).tolist()  # type: ignore[arg-type]


def test_labels_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    image = {"bytes": encoded(np.zeros((4, 4, 3), np.uint8)), "path": None}
    for number, label in enumerate([{"label": ["cat"]}, {"label": [0.5]}, {}]):
        pq.write_table(pa.table({"image": [image]} | label), tmp_path / f"train-{number}.parquet")
    write_parquet(tmp_path / "test-0.parquet", 3, labels=True)
    place = find(tmp_path)
    train, test = (parquet.parquet_rows(place, split, None) for split in ("train", "test"))
    assert (train.has_labels, train.other_labels, test.has_labels, test.other_labels) == (False, "double or none or string", True, "")
    (tmp_path / "train-0.parquet").unlink()
    (tmp_path / "train-1.parquet").unlink()
    assert parquet.parquet_rows(find(tmp_path), "train", None).other_labels == ""
    write_parquet(tmp_path / "train-0.parquet", 3, labels=True)
    assert parquet.parquet_rows(find(tmp_path), "train", None).other_labels == "int64 or none"


@pytest.mark.parametrize(
    ("kind", "labels"),
    [(pa.int64(), [10**12, -7, 2, None]), (pa.uint64(), [2**63, 2**64 - 1, 2, None]), (pa.int32(), [100_000, -1, 2, None])],
)
def test_labels_that_are_no_classes(tmp_path: Path, kind: pa.DataType, labels: list[int | None]) -> None:
    image = {"bytes": encoded(np.zeros((4, 4, 3), np.uint8)), "path": None}
    pq.write_table(pa.table({"image": [image] * 4, "label": pa.array(labels, kind)}), tmp_path / "train.parquet")
    place, part = find(tmp_path / "train.parquet"), parquet.ParquetPart(name="train.parquet", row_group=0, rows=(0, 1, 2, 3), first=0)
    read = photos.read_squares(parquet.open_parquet_part(place, part, labels=True), 4)
    assert read[1].tolist() == [-1, -1, 2, -1]


def test_parquet_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no Parquet files in it"):
        parquet.parquet_rows(find(touch(tmp_path / "a", "x.jpg")), "train", None)
    pq.write_table(pa.table({"picture": [b"1"], "label": [1]}), tmp_path / "a" / "b.parquet")
    with pytest.raises(DataError, match=r"a/b\.parquet: no column `image`: its columns are picture, label"):
        parquet.parquet_rows(find(tmp_path), "train", None)
    pq.write_table(pa.table({"image": [b"1"]}), tmp_path / "a" / "b.parquet")
    with pytest.raises(DataError, match=r"a/b\.parquet: the column `image` is binary, not the Hugging Face layout"):
        parquet.parquet_rows(find(tmp_path), "train", None)
    for content in ("text", [1, 2, 3]):
        pq.write_table(pa.table({"image": [{"bytes": content, "path": None}]}), tmp_path / "a" / "b.parquet")
        with pytest.raises(DataError, match=r"a/b\.parquet: the column `image` is struct<bytes: .*>, not the Hugging Face layout"):
            parquet.parquet_rows(find(tmp_path), "train", None)


def test_damaged_parquet(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "train.parquet", 20, group=20).read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train\.parquet: not a Parquet file that can be read"):
        parquet.parquet_rows(find(tmp_path), "train", None)
    (tmp_path / "train.parquet").write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    place = find(tmp_path)
    rows = parquet.parquet_rows(place, "train", None)
    _, labels, names, unreadable = photos.read_squares(parquet.open_parquet_part(place, rows.parts[0], labels=False), 4)
    assert len(labels) == len(names) == 0
    assert len(unreadable) == len(rows_of(rows))
    assert all("row group 0 is damaged" in reason for reason in unreadable.values())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 20_000), (300, 200), (64, 64), (31, 33)])
def test_square_is_the_centre(height: int, width: int) -> None:
    rgb_hwc = np.zeros((height, width, 3), np.uint8)
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    rgb_hwc[top : top + short, left : left + short] = (200, 100, 50)
    square = photos.square_of(encoded(rgb_hwc), "x", 64)
    assert square.shape == (3, 64, 64)
    assert np.array_equal(square, np.broadcast_to(np.array([200, 100, 50], np.uint8)[:, None, None], (3, 64, 64)))


def test_grey_and_unreadable_pictures() -> None:
    grey = photos.square_of(encoded(np.full((40, 30), 77, np.uint8)), "g", 16)
    assert np.array_equal(grey, np.full((3, 16, 16), 77))
    files: list[photos.RawPicture] = [
        ("good", encoded(np.zeros((9, 9, 3), np.uint8)), 3),
        ("zero", b"", -1),
        ("text", b"hello", -1),
        ("cut", encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")[:900], -1),
        ("gone", PictureError("gone: cannot be read: no such file"), -1),
    ]
    squares, labels, names, unreadable = photos.read_squares(files, 8)
    assert squares.shape == (1, 3, 8, 8)
    assert (labels.tolist(), names) == ([3], ["good"])
    assert set(unreadable) == {"zero", "text", "cut", "gone"}
    assert unreadable["gone"] == "cannot be read: no such file"
    assert not any(reason.startswith(name) for name, reason in unreadable.items())


def test_what_counts_as_grey() -> None:
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (1, 32, 32))
    noisy = np.clip(np.broadcast_to(grey, (3, 32, 32)) + random.integers(-1, 2, (3, 32, 32)), 0, 255)
    sepia = (grey / 255) ** np.array([0.85, 1.0, 1.2])[:, None, None] * 255
    fog = np.broadcast_to(150 + grey // 8, (3, 32, 32)).copy()
    fog[0, 8:14, 8:14] += 40  # a red boat in it
    sky = np.where(grey > 200, 250, np.array([90, 150, 230])[:, None, None])  # white on blue: as simple as sepia, but a colour
    pictures = [np.broadcast_to(grey, (3, 32, 32)), noisy, sepia, fog, sky, random.integers(0, 256, (3, 32, 32))]
    rgb_b3hw = torch.from_numpy(np.stack(pictures).astype(np.uint8))
    assert is_grey(rgb_to_lab(rgb_b3hw)).tolist() == [True, True, True, False, False, False]


def test_lab_batch_drops_only_grey() -> None:
    rgb_b3hw = np.random.default_rng(0).integers(0, 256, (5, 3, 12, 10), np.uint8)
    rgb_b3hw[2] = 80
    names = list("abcde")
    threads = torch.get_num_threads()
    try:
        batch, grey = to_lab_batch(rgb_b3hw, np.arange(5), names, drop_grey=True)
        whole, none = to_lab_batch(rgb_b3hw, np.arange(5), names, drop_grey=False)
    finally:
        torch.set_num_threads(threads)
    assert grey == ["c"]
    assert none == []
    assert batch["name"].tolist() == list("abde")
    assert batch["label"].tolist() == [0, 1, 3, 4]
    assert (whole["L"].shape, whole["ab"].shape, whole["rgb"].shape) == ((5, 1, 12, 10), (5, 2, 12, 10), (5, 3, 12, 10))
    assert (whole["L"].dtype, whole["ab"].dtype, whole["rgb"].dtype) == (np.float16, np.float16, np.uint8)
    lab_b3hw = rgb_to_lab(torch.from_numpy(rgb_b3hw)).numpy()
    assert np.abs(whole["L"] - lab_b3hw[:, :1]).max() <= 0.035
    assert np.abs(whole["ab"] - lab_b3hw[:, 1:]).max() <= 0.035
    assert np.array_equal(whole["rgb"], rgb_b3hw)
