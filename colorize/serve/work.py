"""One picture's way through the service, from its bytes to its files: opened, measured, asked about, painted.

Knows nothing of HTTP. Used by the routes for one picture and for many. The codecs run in the desk's threads, and the picture's
pixels are of the desk's budget meanwhile.
"""

import dataclasses
import time
from dataclasses import dataclass

from colorize.errors import HintError, PictureError
from colorize.imaging.formats import is_known, open_scan
from colorize.imaging.guard import TooManyPixelsError
from colorize.imaging.scan import Scan
from colorize.serve.codec import SUFFIXES, Answer, File, Wish, mean_confidence, paintings, questions
from colorize.serve.desk import Desk
from colorize.serve.upload import PARAMETER, Refusal


@dataclass(frozen=True, kw_only=True)
class Done:
    """A picture in colour."""

    files: tuple[File, ...]
    """The candidates, then the confidence map."""
    mean_confidence: float
    """0…1, of all pages."""
    model: str
    """The name of the model that answered."""
    model_sha256: str
    batch_size: int
    """The most pages that the network was shown together with one of this picture's."""
    seconds: dict[str, float]
    """By step: decode, predict, encode."""


async def colored(desk: Desk, body: bytes, wish: Wish, name: str = "") -> Done:
    """The picture in colour. name: what its files are called, with its suffix; "": `picture` and a suffix of its format.

    Raises Refusal: 404 for a model that there is not, 413 for too many pixels or pages, 415 for what is no picture of a known format, 422
    for what is damaged or cannot be had in the format that is wished for, 503 where the model cannot be asked now.
    """
    entry = await desk.model(wish.model)
    scan = await desk.run(_opened, body)
    if len(scan.pages) > desk.config.max_pages:
        raise Refusal(413, f"the picture: has {len(scan.pages):,} pages; pictures of up to {desk.config.max_pages:,} are coloured here")
    pixels = sum(page.width * page.height for page in scan.pages)
    async with desk.holding(pixels):
        marks = [time.monotonic()]
        try:
            asked = await desk.run(questions, scan, wish, entry.card)
            marks.append(time.monotonic())
            answers: list[Answer] = []
            for start in range(0, len(asked), desk.config.batch_size):  # a long document is not to fill the queue
                answers += await desk.ask_all(asked[start : start + desk.config.batch_size])
            marks.append(time.monotonic())
            answer = answers[0]
            card = dataclasses.replace(entry.card, name=answer.model, weights_sha256=answer.model_sha256)
            name = name or f"picture{SUFFIXES[scan.format]}"
            # One file after another: a sender that has gone is noticed between them.
            files = [await desk.run(painting) for painting in await desk.run(paintings, scan, answers, wish, card, name, asked[0].hints)]
        except HintError as error:
            raise Refusal(422, str(error), cause=PARAMETER) from error
        except PictureError as error:
            raise Refusal(422, str(error)) from error
        marks.append(time.monotonic())
    desk.meter.colored(answer.model, pixels)
    steps = zip(("decode", "predict", "encode"), marks, marks[1:], strict=False)
    return Done(
        files=tuple(files), mean_confidence=mean_confidence(answers), model=answer.model, model_sha256=answer.model_sha256,
        batch_size=max(answer.batch_size for answer in answers), seconds={step: end - start for step, start, end in steps},
    )  # fmt: skip


def _opened(body: bytes) -> Scan:
    try:
        return open_scan(body)
    except TooManyPixelsError as error:
        raise Refusal(413, str(error)) from error
    except PictureError as error:
        raise Refusal(422 if is_known(body) or not body else 415, str(error)) from error
