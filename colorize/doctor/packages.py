"""The installation: whether every package that this program needs is there, in a version that it and the others take, and loads.

Read from the installed packages' own metadata, as `pip check` does, but only from what colorize needs: what else lives in the same
environment is not its business.
"""

from __future__ import annotations

import importlib
import platform
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from colorize.doctor.finding import Finding

OURS = "colorize"
SHOWN = ("ray", "torch", "pyarrow", "imagecodecs", "jpeglib", "numpy", "pillow")
COMPILED = ("numpy", "torch", "pyarrow", "imagecodecs", "jpeglib", "safetensors", "ray")
"""Loaded to see whether they can be: what is compiled for another machine or lacks a library fails only then."""

INSTALL = "install it anew: pip install --constraint constraints.txt ."


def check_packages(name: str = OURS) -> list[Finding]:
    """One finding on Python, one on the versions of all that `name` needs, directly or not."""
    try:
        ours = distribution(name)
    except PackageNotFoundError:
        return [Finding(check="packages", status="wrong", found=f"{name} is not installed, only lying here", advice=INSTALL)]
    wanted = "".join(ours.metadata.get_all("Requires-Python") or [])
    version = platform.python_version()
    fits = SpecifierSet(wanted).contains(version, prereleases=True)
    python = Finding(
        check="Python", status="ok" if fits else "wrong", found=f"{version} ({sys.executable})",
        advice="" if fits else f"{name} needs Python {wanted}",
    )  # fmt: skip
    amiss, seen = _amiss(ours)
    shown = ", ".join(f"{one} {seen[one]}" for one in SHOWN if one in seen)
    if amiss:
        return [python, Finding(check="packages", status="wrong", found="; ".join(amiss[:5]) + _more(len(amiss) - 5), advice=INSTALL)]
    return [
        python,
        Finding(check="packages", status="ok", found=f"{len(seen)} as required: {shown}" if shown else f"{len(seen)} as required"),
    ]


def check_loading(modules: tuple[str, ...] = COMPILED) -> Finding:
    """Whether the compiled packages load."""
    amiss = []
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 – whatever keeps it from loading is what was asked for
            amiss.append(f"{module}: {' '.join(str(error).split()) or type(error).__name__}")
    if amiss:
        return Finding(check="loading", status="wrong", found="; ".join(amiss), advice=INSTALL)
    return Finding(check="loading", status="ok", found=f"{', '.join(modules)} load")


def _amiss(ours: Distribution) -> tuple[list[str], dict[str, str]]:
    """What is missing or of another version than required; and of every package that was looked at its version.

    An optional package (of an extra that nobody asked for) is looked at where it is installed, by whom colorize would use it.
    """
    amiss: list[str] = []
    seen: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    extras = [one for one in ours.metadata.get_all("Provides-Extra") or [] if one != "dev"]
    todo: list[tuple[Distribution, str, bool]] = [(ours, "", True), *((ours, extra, False) for extra in extras)]
    while todo:
        asking, extra, is_needed = todo.pop()
        environment = {**{name: str(value) for name, value in default_environment().items()}, "extra": extra}
        for line in asking.requires or []:
            try:
                wanted = Requirement(line)
            except InvalidRequirement:  # of an old package: pip let it pass
                continue
            if wanted.marker and not wanted.marker.evaluate(environment):
                continue
            if extra and (not wanted.marker or "extra" not in str(wanted.marker)):
                continue  # needed without the extra, and looked at there
            name = canonicalize_name(wanted.name)
            try:
                found = distribution(name)
            except PackageNotFoundError:
                if is_needed:
                    amiss.append(f"{name} is missing ({asking.name} needs {name}{wanted.specifier})")
                continue
            seen[name] = found.version
            if not wanted.specifier.contains(found.version, prereleases=True):
                amiss.append(f"{name} is {found.version} ({asking.name} needs {wanted.specifier})")
            for further in ("", *wanted.extras):
                if (name, further) not in done:
                    done.add((name, further))
                    todo.append((found, further, is_needed))
    return sorted(set(amiss)), seen


def _more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
