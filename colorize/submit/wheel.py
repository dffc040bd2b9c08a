"""This program as a wheel, made from the files that run: of a checkout, and of an installed package alike.

No build tool is asked, so no network is needed. The same files always give the same bytes: the cluster, which names a package by its
content, takes them once. About 30 MB in 0.4 s, nearly all of it the models and the sample, which are stored as they are.
"""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from colorize import errors
from colorize.errors import ConfigError

LARGEST_BYTES = 100 << 20
"""What Ray's job server takes in one upload."""

_STORED = (".safetensors", ".jpg", ".png", ".webp", ".parquet", ".npz")
"""Files that compression makes hardly smaller."""

_TOLD_FILES = 3


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel that pip could install, and that can be put on the module path as it is: it holds Python and data only."""

    name: str
    """Its file name, `colorize-VERSION-py3-none-any.whl`."""
    data: bytes


def build_wheel(package: Path | None = None, *, largest: int = LARGEST_BYTES) -> Wheel:
    """The wheel of the package that is running, or of the one in the folder `package`.

    Raises ConfigError, naming the largest files, when it has more than `largest` bytes.
    """
    package = package or Path(errors.__file__).parent
    about = distribution("colorize")
    info = f"colorize-{about.version}.dist-info"
    files = dict(_files_of(package)) | {f"{info}/{name}": text.encode() for name, text in _metadata(about)}
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # of 1980: a file's own time is another one in each checkout
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    data = packed.getvalue()
    if len(data) >= largest:
        sizes = sorted(((len(content), name) for name, content in files.items()), reverse=True)[:_TOLD_FILES]
        told = ", ".join(f"{name} ({_mebibytes(size)})" for size, name in sizes)
        raise ConfigError(f"{package}: as a wheel {_mebibytes(len(data))}, and Ray takes less than {_mebibytes(largest)}: {told}")
    return Wheel(name=f"colorize-{about.version}-py3-none-any.whl", data=data)


def _files_of(package: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(package.rglob("*")):
        parts = path.relative_to(package).parts
        if "__pycache__" not in parts and not any(part.startswith(".") for part in parts) and path.is_file():
            yield "/".join((package.name, *parts)), path.read_bytes()


def _metadata(about: Distribution) -> Iterator[tuple[str, str]]:
    # Started in a checkout, Python finds the .egg-info that an editable installation left there before the .dist-info.
    told = about.read_text("METADATA") or about.read_text("PKG-INFO")
    assert told, f"{about}: an installation without metadata"
    yield "METADATA", told
    for name in ("entry_points.txt", "top_level.txt", "licenses/LICENSE"):
        if (text := about.read_text(name)) is not None:
            yield name, text
    yield "WHEEL", "Wheel-Version: 1.0\nGenerator: colorize\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
