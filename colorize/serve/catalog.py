"""Which models there are: the service's own, those that ship, and those of the operator's folder; by name, never by a path from outside.

Knows nothing of Ray or HTTP, and reads headers only. A file in the folder that is replaced is a new version: it is recognised by its
inode, size and time, and the next question is answered with it.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from colorize.errors import ModelError
from colorize.model.card import SHIPPED, SUFFIX, ModelCard, read_card, shipped_names

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Version = tuple[int, int, int]
"""Inode, size and time of change of a file."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that may be asked."""

    name: str
    path: Path | None
    """None: the service's own, whose bytes the replicas hold."""
    version: Version | None
    card: ModelCard


class Catalog:
    """The models by name; the service's own comes first."""

    def __init__(self, card: ModelCard, models_dir: str | None) -> None:
        """card: of the service's own model. models_dir: the operator's folder."""
        self._own = Entry(name=card.name, path=None, version=None, card=card)
        self._folder = None if models_dir is None else Path(models_dir)
        self._known: dict[Path, Entry] = {}

    @property
    def own(self) -> Entry:
        """The model that answers where none is named."""
        return self._own

    def names(self) -> list[str]:
        """All of them, the service's own first."""
        found = {*shipped_names(), *self._in_folder()} - {self._own.name}
        return [self._own.name, *sorted(found)]

    def find(self, name: str | None) -> Entry:
        """The model of that name; None: the service's own. Raises ModelError where there is none, or its file is none."""
        if name is None or name == self._own.name:
            return self._own
        if not _NAME.fullmatch(name):
            raise ModelError(f"model {name[:40]!r}: no such model; there are {', '.join(self.names())}")
        if self._folder is not None and _is_file(path := self._folder / f"{name}{SUFFIX}"):
            return self._entry(name, path)
        if name in shipped_names():
            return self._entry(name, SHIPPED / f"{name}{SUFFIX}")
        raise ModelError(f"model {name}: no such model; there are {', '.join(self.names())}")

    def _in_folder(self) -> list[str]:
        if self._folder is None:
            return []
        try:
            paths = list(self._folder.glob(f"*{SUFFIX}"))
        except OSError:  # a folder that is gone has no models
            return []
        return [path.stem for path in paths if _NAME.fullmatch(path.stem) and _is_file(path)]

    def _entry(self, name: str, path: Path) -> Entry:
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(f"model {name}: cannot be read ({error.strerror})") from error
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._known.get(path)
        if known is None or known.version != version:
            try:
                card = read_card(path)
            except ModelError as error:  # its message has the path, which is nobody's business outside
                if known is not None:  # a new version that is none: the old one may be in memory
                    return known
                raise ModelError(f"model {name}: its file is damaged or of another program") from error
            known = self._known[path] = Entry(name=name, path=path, version=version, card=dataclasses.replace(card, name=name))
        return known


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # of a folder that may not be looked into
        return False
