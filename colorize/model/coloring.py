"""A scan and a network brought together: what the network is shown of it, and the network's answer onto it.

The same for the command line, a bulk run's worker and the service's ingress. Knows nothing of Ray. The network sees every page upright;
its colours are turned back before they are grafted, and the file's orientation stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from PIL import Image

from colorize.errors import PictureError
from colorize.imaging.convert import Format, convert
from colorize.imaging.formats import open_scan
from colorize.imaging.formats.tiff import TiffScan
from colorize.imaging.mark import marked
from colorize.imaging.note import Note
from colorize.imaging.scan import Scan
from colorize.imaging.upsample import Point
from colorize.model.card import ModelCard
from colorize.model.colorizer import Colorizer, Prediction, working_shape
from colorize.model.hints import Hint
from colorize.model.reference import Reference
from colorize.model.settings import DecodeSettings
from colorize.model.swatches import load_swatches
from colorize.storage.place import cause, temporary_files


def views(scan: Scan, card: ModelCard) -> list[npt.NDArray[np.float32]]:
    """What the model of `card` is to see: the lightness of each page, upright, (h, w) 0…100, at the model's working size.

    That is all that has to travel to a network: of a scan of 17 MP, 64 KB at a working size of 128. Raises PictureError.
    """
    seen = []
    for index, page in enumerate(scan.pages):
        height, width = working_shape((page.height, page.width), card)
        seen.append(np.ascontiguousarray(page.upright(scan.lightness(index, height, width))))
    return seen


def paint(
    scan: Scan,
    predictions: Sequence[Prediction],
    target: BinaryIO,
    note: Note | None,
    *,
    candidate: int = 0,
    mark: bool = False,
    wanted: Format | None = None,
    hints: Sequence[Hint] = (),
) -> None:
    """Writes the scan in colour into `target` (see `Scan.write`), with one prediction a page, of which it takes that candidate.

    hints: of a scan of one page, those that the prediction was made with: each is obeyed to the pixel, however near another is.
    mark: a small flag in a corner shows that the colours are made (see `colorize.imaging.mark`). wanted: another format than the scan's.
    Raises PictureError.
    """
    first, ab_2hw_of_pages = scan.pages[0], []
    places = [first.stored_place(hint.across, hint.down) for hint in hints]
    points = [Point(across=across, down=down, ab=hint.ab) for (across, down), hint in zip(places, hints, strict=True)]
    for index, (page, prediction) in enumerate(zip(scan.pages, predictions, strict=True)):
        ab_2hw = np.ascontiguousarray(page.as_stored(prediction.ab_n2hw[candidate].numpy()))
        if mark:
            height, width = ab_2hw.shape[-2:]
            ab_2hw = marked(ab_2hw, scan.lightness(index, height, width))
        ab_2hw_of_pages.append(ab_2hw)
    if wanted is None or wanted.upper() == scan.format:
        scan.write(target, ab_2hw_of_pages, note, points)
        return
    with ExitStack() as stack:
        try:
            with temporary_files():
                own = stack.enter_context(TemporaryFile())  # not in memory, where a TIFF without compression would lie whole
                scan.write(own, ab_2hw_of_pages, note, points)
                own.seek(0)
        except OSError as error:  # which would be taken for the target's
            raise PictureError(f"{scan.name}: cannot be converted: {cause(error)}") from error
        colored = TiffScan(own, scan.name) if scan.format == "TIFF" else open_scan(own.read(), name=scan.name)
        convert(colored, wanted, target, note)


def colorize_scan(scan: Scan, colorizer: Colorizer, settings: DecodeSettings | None = None) -> bytes:
    """The scan's file in colour: what it is for one picture, where nothing is to be batched or streamed. Raises PictureError."""
    settings = settings or DecodeSettings()
    target = BytesIO()
    card = colorizer.model.card
    paint(scan, colorizer.predict(views(scan, card), settings), target, note_of(card, settings))
    return target.getvalue()


def load_settings(
    *, vividness: float, temperature: float | None, palette: str | Path | None, reference: str | Path | None, candidates: int = 1
) -> DecodeSettings:
    """What options ask for: palette is a shipped one's name or a JSON file, reference a picture file.

    Raises ConfigError for a number out of range, before any file is read; HintError, PictureError for a palette or reference that is none.
    """
    numbers = DecodeSettings(vividness=vividness, temperature=temperature, candidates=candidates)
    return replace(
        numbers,
        palette=None if palette is None else load_swatches(palette),
        reference=None if reference is None else load_reference(Path(reference)),
    )


def load_reference(path: Path) -> Reference:
    """A colour picture file as a reference for `DecodeSettings`. Raises PictureError, HintError for a grey one."""
    return Reference.from_scan(open_scan(path))


def note_of(card: ModelCard, settings: DecodeSettings) -> Note:
    """What a file coloured by the model of `card` says of its colours."""
    return Note(model=card.name, model_sha256=card.weights_sha256, vividness=settings.vividness)


def confidence_png(prediction: Prediction, height: int, width: int) -> bytes:
    """The confidence map of an upright page as a grey PNG of height×width pixels: white is certain."""
    map_11hw = F.interpolate(255 * prediction.confidence_hw[None, None].float(), size=(height, width), mode="bilinear")
    map_hw = map_11hw[0, 0].round().byte().numpy()
    buffer = BytesIO()
    Image.fromarray(map_hw).save(buffer, "PNG")
    return buffer.getvalue()
