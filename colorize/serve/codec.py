"""From a picture file to questions to the network, and from its answers back to files: the ingress's work on one picture.

Knows nothing of HTTP and nothing of Ray. A picture is brought to the network's size here, not in the model's replica: a scan of 17 MP
is 68 MB of lightness, of which the network sees 34,000 numbers at a working size of 160. They travel as 16 bits each: L has 100 steps of
which the network sees 256 in bfloat16, and what is below 100 KB goes along with the call instead of through the object store.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from colorize.errors import HintError
from colorize.imaging.convert import Format
from colorize.imaging.scan import Scan
from colorize.model.card import ModelCard
from colorize.model.coloring import confidence_png, note_of, paint, views
from colorize.model.colorizer import Prediction
from colorize.model.hints import Hint, parse_hints
from colorize.model.settings import DecodeSettings

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "JPEG2000": "image/jp2",
    "BMP": "image/bmp",
    "PPM": "image/x-portable-anymap",
    "HEIF": "image/heic",
}
"""By `Scan.format`."""

SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "JPEG2000": ".jp2",
    "BMP": ".bmp",
    "PPM": ".ppm",
    "HEIF": ".heic",
}
"""By `Scan.format`: for a picture that came without a name."""

_L_STEPS = 65535 / 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One page, as the network is to see it."""

    L16_hw: npt.NDArray[np.uint16]
    """(h, w) lightness, 0…65535 for 0…100, at the model's working size. `packed` makes it."""

    settings: DecodeSettings
    """How its colours are decoded."""

    model: str | None = None
    """The name of a model that the catalog has; None: the service's own."""

    working_size: int | None = None
    """The size at which `L16_hw` was made, where it is not the model's."""

    hints: tuple[Hint, ...] = ()
    """Colours that are given."""

    def lightness(self) -> npt.NDArray[np.float32]:
        """L (h, w) 0…100."""
        return self.L16_hw.astype(np.float32) / np.float32(_L_STEPS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the network says of one page."""

    ab_n2hw: npt.NDArray[np.float32]
    """(candidates, 2, h', w') ab units, at the network's resolution."""

    confidence_hw: npt.NDArray[np.float32]
    """(h', w') 0…1."""

    batch_size: int
    """How many pages, this one included, the network was shown together."""

    model: str
    """The name of the model that answered: while a new version rolls out, it may be either."""

    model_sha256: str
    """The digest of its weights."""

    @property
    def prediction(self) -> Prediction:
        """The same for what paints."""
        return Prediction(ab_n2hw=torch.tensor(self.ab_n2hw), confidence_hw=torch.tensor(self.confidence_hw))


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a client wants of a picture."""

    settings: DecodeSettings
    model: str | None = None
    """As in `Question`."""
    candidate: int | None = None
    """1…: only that one of the candidates; None: all."""
    format: Format | None = None
    """None: the picture's own."""
    confidence: Literal["no", "true", "only"] = "no"
    """Whether the confidence map comes with the pictures, or alone."""
    hints: str | bytes | None = None
    """The JSON document; None: no hints."""


File = tuple[str, str, bytes]
"""(name, media type, bytes)."""


def packed(L_hw: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Lightness 0…100 in 16 bits, as a `Question` carries it."""
    return (L_hw * np.float32(_L_STEPS) + np.float32(0.5)).astype(np.uint16)


def questions(scan: Scan, wish: Wish, card: ModelCard) -> list[Question]:
    """What the model of `card` is to be asked about the picture, a question a page. Raises PictureError and HintError."""
    hints: tuple[Hint, ...] = ()
    if wish.hints is not None:
        height, width = scan.pages[0].upright_shape
        hints = parse_hints(wish.hints, width=width, height=height)
        if hints and len(scan.pages) > 1:
            raise HintError(f"hints: are for pictures of one page, and this has {len(scan.pages)}")
    return [Question(L16_hw=packed(L_hw), settings=wish.settings, model=wish.model, hints=hints) for L_hw in views(scan, card)]


def paintings(
    scan: Scan, answers: Sequence[Answer], wish: Wish, card: ModelCard, name: str, hints: Sequence[Hint] = ()
) -> list[Callable[[], File]]:
    """What makes the files in colour, one each, and then the confidence map, where it is wished for: each takes its time, and raises
    PictureError. So who waits for them can stop between two.

    card: of the model that answered. name: what the picture is called, with its suffix. hints: those of the questions.
    """
    predictions = [answer.prediction for answer in answers]
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem else (name, "")
    kind = wish.format.upper() if wish.format else scan.format
    if kind != scan.format:
        suffix = SUFFIXES[kind]

    def candidate(index: int) -> File:
        target = BytesIO()
        paint(scan, predictions, target, note_of(card, wish.settings), candidate=index, wanted=wish.format, hints=hints)
        number = f"-{index + 1}" if index else ""
        return f"{stem}{number}{suffix}", MEDIA_TYPES[kind], target.getvalue()

    def confidence() -> File:
        return f"{stem}-confidence.png", "image/png", confidence_png(predictions[0], *scan.pages[0].upright_shape)

    found: list[Callable[[], File]] = []
    if wish.confidence != "only":
        wanted = range(wish.settings.candidates) if wish.candidate is None else [wish.candidate - 1]
        found += [partial(candidate, index) for index in wanted]
    if wish.confidence != "no":
        found.append(confidence)
    return found


def mean_confidence(answers: Sequence[Answer]) -> float:
    """0…1, of all pages."""
    return sum(float(answer.confidence_hw.mean()) for answer in answers) / len(answers)
