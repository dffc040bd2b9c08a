"""The public API: explicit, sorted, importable, and free until it is used."""

import subprocess
import sys
from types import ModuleType

import pytest

import colorize
from colorize import errors


def test_all_is_sorted_and_can_be_imported() -> None:
    assert colorize.__all__ == sorted(set(colorize.__all__))
    for name in colorize.__all__:
        assert getattr(colorize, name).__module__.startswith("colorize.")


def test_all_is_what_the_module_defines() -> None:
    public = {
        name
        for name, member in vars(colorize).items()
        if not name.startswith("_") and not isinstance(member, ModuleType) and getattr(member, "__module__", "").startswith("colorize.")
    }
    assert public | set(colorize._HOMES) == set(colorize.__all__)


def test_every_error_is_exported() -> None:
    assert {name for name, member in vars(errors).items() if isinstance(member, type)} <= set(colorize.__all__)


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    code = "import sys, colorize; sys.exit(bool({'torch', 'ray', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_what_takes_long_to_load_is_loaded_when_it_is_used() -> None:
    code = (
        "import sys, colorize.submit.jobs, colorize.schedule.process, colorize.model.colorizer\n"
        "loaded = {'ray.data', 'scipy.linalg'} & set(sys.modules)\n"
        "import colorize.model.metrics\n"
        "sys.exit(str(loaded) if (loaded := loaded | {'skimage'} & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
