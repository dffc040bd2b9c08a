"""The wheel that travels with a job: all that runs and nothing else, the same bytes each time, installable, within Ray's limit."""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import colorize
from colorize.errors import ConfigError
from colorize.submit.wheel import LARGEST_BYTES, Wheel, build_wheel

PACKAGE = Path(colorize.__file__).parent


@pytest.fixture(scope="module")
def wheel() -> Wheel:
    return build_wheel()


@pytest.fixture(scope="module")
def contents(wheel: Wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel.data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_has_every_file_of_the_package(contents: dict[str, bytes]) -> None:
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {f"colorize/{path.relative_to(PACKAGE).as_posix()}" for path in files} <= set(contents)
    assert contents["colorize/weights/photo.safetensors"] == (PACKAGE / "weights/photo.safetensors").read_bytes()


def test_it_has_nothing_else(contents: dict[str, bytes]) -> None:
    assert {name.partition("/")[0] for name in contents} == {"colorize", f"colorize-{version('colorize')}.dist-info"}
    assert not [name for name in contents if "__pycache__" in name or name.endswith(".pyc")]


def test_its_record_is_right(contents: dict[str, bytes]) -> None:
    info = f"colorize-{version('colorize')}.dist-info"
    record = {name: (digest, size) for name, digest, size in csv.reader(contents[f"{info}/RECORD"].decode().splitlines())}
    assert set(record) == set(contents)
    for name, content in contents.items():
        if name != f"{info}/RECORD":
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert record[name] == (f"sha256={digest}", str(len(content)))


def test_the_same_files_give_the_same_bytes(wheel: Wheel, tmp_path: Path) -> None:
    again = tmp_path / "colorize"
    for path in sorted(PACKAGE.rglob("*"), reverse=True):  # written in another order, at another time
        if path.is_file() and "__pycache__" not in path.parts:
            (again / path.relative_to(PACKAGE)).parent.mkdir(parents=True, exist_ok=True)
            (again / path.relative_to(PACKAGE)).write_bytes(path.read_bytes())
    (again / "__pycache__").mkdir()
    (again / "__pycache__" / "errors.cpython-311.pyc").write_bytes(b"compiled")
    assert build_wheel(again).data == wheel.data


def test_another_byte_gives_another_wheel(tmp_path: Path) -> None:
    package = tmp_path / "colorize"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    before = build_wheel(package).data
    (package / "__init__.py").write_text("a = 2\n")
    assert build_wheel(package).data != before


def test_it_is_far_below_the_limit_of_ray(wheel: Wheel) -> None:
    assert len(wheel.data) < LARGEST_BYTES / 2


def test_one_that_is_too_large_names_the_largest_files(tmp_path: Path) -> None:
    package = tmp_path / "colorize"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "huge.safetensors").write_bytes(bytes(3 << 20))
    with pytest.raises(
        ConfigError, match=r"as a wheel 3\.0 MiB, and Ray takes less than 2\.0 MiB: colorize/huge\.safetensors \(3\.0 MiB\)"
    ):
        build_wheel(package, largest=2 << 20)


@pytest.mark.slow
def test_pip_installs_it(wheel: Wheel, tmp_path: Path) -> None:
    file = tmp_path / wheel.name
    file.write_bytes(wheel.data)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(file)], check=True)
    assert (tmp_path / "site" / "colorize" / "cli" / "main.py").read_bytes() == (PACKAGE / "cli" / "main.py").read_bytes()


def test_unpacked_it_runs(contents: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    code = "import colorize, importlib.metadata as m; print(colorize.__file__); print(m.distribution('colorize').locate_file('').resolve())"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, check=True)
    assert told.stdout.decode().splitlines() == [str(tmp_path / "colorize" / "__init__.py"), str(tmp_path)]


def test_it_says_its_version_also_where_a_checkout_has_an_egg_info(tmp_path: Path) -> None:
    (tmp_path / "colorize").symlink_to(PACKAGE)
    info = tmp_path / "colorize.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: colorize\nVersion: 7.0\n")
    code = "from colorize.submit.wheel import build_wheel; import sys; sys.stdout.buffer.write(build_wheel().data)"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, check=True)
    with zipfile.ZipFile(io.BytesIO(told.stdout)) as archive:
        assert b"Version: 7.0\n" in archive.read("colorize-7.0.dist-info/METADATA")
