"""The public API: explicit, sorted, importable, and free until it is used."""

import subprocess
import sys
from types import ModuleType

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
