"""The card of a model: what it is, what it was trained on, how well it does. It is read without loading torch.

A model file is a safetensors file whose header carries the card as JSON under the key `colorize_card`, so weights and card cannot be
parted, and the SHA-256 of that JSON beside it, so that a damaged card is noticed too. Listing models reads headers only: a few kilobytes a
file.
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from colorize.errors import ModelError, one_line
from colorize.storage.place import cause, is_url

FORMAT = 1
"""The version of the file format that this program writes, and the newest that it reads."""

DEFAULT_MODEL = "photo"
"""The shipped model that colours pictures where no one names another."""

DEFAULT_VIVIDNESS = 0.5
"""How vivid pictures become where no one says otherwise, by the commands and the service; the library's `DecodeSettings` have 0, as scores
are told. 0 looks washed out to most eyes, 1 loud where the network is in doubt."""

CARD_KEY, DIGEST_KEY = "colorize_card", "colorize_card_sha256"
SUFFIX = ".safetensors"
SHIPPED = Path(__file__).parent.parent / "weights"

LARGEST_SIZE = 4096
"""The most pixels of a side that a card may ask for: the network sees that many, squared, at once."""

FINEST_STEP, COARSEST_STEP = 1, 128
"""Of a palette, in ab units: a finer one has more nodes than memory, a coarser one no room in the plane."""

_LARGEST_HEADER = 10_000_000
_LARGEST_NUMBER = 10**15
"""Python takes whole numbers of any length, which then do not go into a float."""
_LARGEST_OF_DIAL = 1000
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model file says of itself."""

    name: str
    """The model's name: the file's stem for a shipped model."""

    network: dict[str, Any]
    """The fields of the network's configuration, and its kind (see `colorize.model.network`)."""

    palette_step: float
    """The distance of neighbouring bins, in ab units."""

    working_size: int
    """The short side, in pixels, at which pictures are shown to the network; smaller ones as they are, down to `trained_size`."""

    mirrored: bool = True
    """Whether the network is shown each picture and its mirror image, and the two answers are averaged."""

    dial: dict[str, float]
    """The `VividnessDial` fields."""

    parameters: int
    """How many trained numbers the network has."""

    training: dict[str, Any] = field(default_factory=dict)
    """Data, pictures, epochs, settings, hardware, seconds, versions and commit of the training run."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores on the validation set, beside their baselines."""

    weights_sha256: str = ""
    """SHA-256 over the names and bytes of all tensors, in order of name: damage that keeps the header whole is noticed."""

    format: int = FORMAT
    """The version of the file format."""

    @property
    def trained_size(self) -> int:
        """The side, in pixels, of the crops that it learnt from; its working size where the card does not say."""
        size = self.training.get("config", {}).get("size")
        return size if isinstance(size, int) else self.working_size

    def to_json(self) -> str:
        """The card as one line of JSON; what is undefined is null."""
        return json.dumps(without_nan(dataclasses.asdict(self)), ensure_ascii=False, sort_keys=True)

    def as_base(self) -> dict[str, Any]:
        """What the card of a model that is trained on from this one says of it."""
        return {"name": self.name, "sha256": self.weights_sha256, "data": self.training.get("data")}

    def to_metadata(self) -> dict[str, str]:
        """What a model file's header carries: the card and its checksum."""
        text = self.to_json()
        return {CARD_KEY: text, DIGEST_KEY: _sha256(text)}

    @classmethod
    def from_json(cls, text: str, path: Path) -> ModelCard:
        """Reads a card; `path` names the file in errors. Raises ModelError for a newer or incomplete one, and for values that cannot be."""
        try:
            fields = json.loads(text)
            version = fields["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # ValueError: no JSON, or a number of too many digits
            raise ModelError(f"{path}: its card is not readable ({error})") from error
        if not isinstance(version, int) or version > FORMAT:
            told = one_line(version, 80)
            raise ModelError(f"{path}: written by a newer colorize (format {told}; this one reads up to {FORMAT}): upgrade colorize")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ModelError(f"{path}: its card has unknown fields: {one_line(', '.join(unknown), 80)}")
        try:
            card = cls(**fields)
        except TypeError as error:
            raise ModelError(f"{path}: its card is incomplete ({error})") from error
        for name, (what, is_met) in _MUST_BE.items():
            if not is_met(value := getattr(card, name)):
                raise ModelError(f"{path}: its card is damaged: {name} is {one_line(repr(value), 80)}, not {what}")
        return card


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value, -_LARGEST_NUMBER)


def _is_whole(value: Any, least: int, most: int = _LARGEST_NUMBER) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_dial(dial: Any) -> bool:
    return isinstance(dial, dict) and all(
        _is_number(value) and (0 < value <= 1 if name.endswith("temperature") else 0 <= value <= _LARGEST_OF_DIAL)
        for name, value in dial.items()
    )


def _is_training(training: Any) -> bool:
    return isinstance(training, dict) and isinstance(training.get("config", {}), dict) and _is_whole(training.get("pictures", 0), 0)


def _are_metrics(metrics: Any) -> bool:
    scores = metrics.get("metrics", {}) if isinstance(metrics, dict) else None
    return isinstance(scores, dict) and all(value is None or _is_number(value) for value in scores.values())


_MUST_BE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a text", lambda name: isinstance(name, str)),
    "network": ("an object", lambda network: isinstance(network, dict)),
    "palette_step": (f"a number in {FINEST_STEP}…{COARSEST_STEP}", lambda step: _is_number(step) and FINEST_STEP <= step <= COARSEST_STEP),
    "working_size": (f"a number of pixels, 1 to {LARGEST_SIZE}", lambda size: _is_whole(size, 1, LARGEST_SIZE)),
    "mirrored": ("true or false", lambda mirrored: isinstance(mirrored, bool)),
    "dial": (f"numbers from 0 to {_LARGEST_OF_DIAL}, temperatures above 0 and at most 1", _is_dial),
    "parameters": ("a number of parameters", lambda parameters: _is_whole(parameters, 0)),
    "training": ("an object with `config` as an object and `pictures` as a number", _is_training),
    "metrics": ("an object with `metrics` as numbers", _are_metrics),
    "weights_sha256": ("a text", lambda digest: isinstance(digest, str)),
}
"""What each field of a card is, in words, and whether a value is that. What is in `network` is checked when it is built."""


def read_card(path: Path) -> ModelCard:
    """The card of a model file, from its header alone.

    Raises ModelError for a missing, truncated, pickled or foreign file, and for one written by a newer program.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if not start:
                raise ModelError(f"{path}: the file is empty")
            if start.startswith(_PICKLE_STARTS):
                raise ModelError(f"{path}: a PyTorch pickle; only safetensors models are read, since unpickling can run foreign code")
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= _LARGEST_HEADER:
                raise ModelError(f"{path}: not a safetensors file")
            header = file.read(length)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model; the models that ship: {', '.join(shipped_names()) or 'none'}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    if len(header) < length:
        raise ModelError(f"{path}: truncated ({8 + len(header)} bytes, its header alone has {8 + length})")
    card, data = _read_header(header, path)
    if size != (whole := 8 + length + data):
        raise ModelError(f"{path}: {'truncated' if size < whole else 'damaged'} ({size} bytes, by its header it has {whole})")
    return card


def _read_header(header: bytes, path: Path) -> tuple[ModelCard, int]:
    """The card, and how many bytes of tensors follow the header."""
    try:
        tensors = json.loads(header)
        metadata = tensors.pop("__metadata__", {})
        written = metadata.get(CARD_KEY)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: not a safetensors file (its header is not a JSON object)") from error
    if not isinstance(written, str):
        raise ModelError(f"{path}: a safetensors file of another program: it has no colorize card")
    card = ModelCard.from_json(written, path)
    # A model without any checksum is read; a checksum whose name is damaged does not count as none.
    if set(metadata) != {CARD_KEY} and metadata.get(DIGEST_KEY) != _sha256(written):
        raise ModelError(f"{path}: damaged: its card does not match its checksum")
    try:
        return card, max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: damaged: its header does not say where its tensors are") from error


def without_nan(value: Any) -> Any:
    """The same with null for a number that is undefined, such as a ratio to no colour at all: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sha256(text: str) -> str:
    # A damaged header may hold half of a surrogate pair.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def shipped_names() -> list[str]:
    """The names of the models that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}"))


def resolve(name_or_path: str | Path) -> Path:
    """The file that a model argument means: the name of a shipped model, a model file, or a training run's directory, by path or URL.

    What a URL names is fetched once, and lies on this machine until the program ends. Raises ModelError where there is none, and
    StorageError for a URL that makes no sense.
    """
    if str(name_or_path) in shipped_names():
        return SHIPPED / f"{name_or_path}{SUFFIX}"
    if isinstance(name_or_path, str) and is_url(name_or_path):
        return _fetched(name_or_path)
    path = Path(name_or_path)
    try:
        if path.is_dir():
            best = path / f"model{SUFFIX}"
            if not best.is_file():
                raise ModelError(
                    f"{path}: a directory without model{SUFFIX}; give a model file or the directory of a finished training run"
                )
            return best
        if not path.is_file():
            raise ModelError(f"{path}: no such model; the models that ship: {', '.join(shipped_names()) or 'none'}")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    return path


@lru_cache
def _fetched(url: str) -> Path:
    """A copy of the model that a URL names, in a folder that goes with the program."""
    from colorize.storage.remote import open_place  # pyarrow's file systems take a while, and most models are here

    place = open_place(url)
    try:
        found = place.look("")
        name = f"model{SUFFIX}" if found is not None and found.is_folder else ""
        if found is None or place.look(name) is None:
            raise ModelError(f"{place.shown}: no such model; give a model file or the directory of a finished training run")
        data = place.read(name)
    except OSError as error:
        raise ModelError(f"{place.shown}: cannot be read ({cause(error)})") from error
    folder = tempfile.mkdtemp(prefix="colorize-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder) / f"{PurePosixPath(place.shown).stem}{SUFFIX}"
    copy.write_bytes(data)
    return copy
