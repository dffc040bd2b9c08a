"""What `ray job submit --working-dir .` uploads of this folder, packed as Ray packs it: below its limit, and only what jobs need."""

import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from colorize.submit.wheel import LARGEST_BYTES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("package") / "package.zip"
    create_package(str(ROOT), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    return target


def test_it_is_far_below_the_limit_of_ray(package: Path) -> None:
    assert package.stat().st_size < LARGEST_BYTES / 2


def test_wheels_and_builds_stay_here() -> None:
    """docs/cluster.md has the wheel made in the checkout, 28 MB each time."""
    assert {"/dist/", "/build/", "/runs/"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_it_has_the_program_and_the_jobs_and_no_more_folders(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
    assert {"colorize/cli/main.py", "colorize/weights/photo.safetensors", "jobs/train.py", "jobs/colorize_archive.py"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name.rstrip("/")} == {"colorize", "jobs"}
