"""Contact sheets: rows of pictures side by side under column titles, on white, to look at results.

Knows nothing of files, networks and colour spaces: uint8 RGB arrays in, one out. Small pictures are enlarged by a whole factor and
by repetition, so that every pixel of a 32-pixel picture is seen as it is. Titles are in the font that Pillow carries, so a sheet
looks the same on every machine.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

GAP = 6
MARGIN = 16
TITLE_SIZE = 15
TITLE_HEIGHT = 28
INK = (32, 32, 32)
PAPER = (255, 255, 255)


def contact_sheet(rows: Sequence[Sequence[npt.NDArray[np.uint8]]], titles: Sequence[str], scale: int = 1) -> npt.NDArray[np.uint8]:
    """One picture (h, w, 3) of rows of uint8 RGB pictures (h, w, 3), each row as many as there are titles.

    `scale` enlarges every picture by repeating its pixels. A column is as wide as its widest picture or its title, whichever is
    more; a row as high as its highest picture. Pictures stand at their column's left and their row's top.
    """
    assert titles, "a sheet has at least one column"
    assert rows, "a sheet has at least one row"
    assert scale >= 1, f"the scale is a whole number from 1, not {scale}"
    for row in rows:
        assert len(row) == len(titles), f"a row of {len(row)} pictures under {len(titles)} titles"
        for rgb_hwc in row:
            assert rgb_hwc.dtype == np.uint8, f"pictures are uint8, not {rgb_hwc.dtype}"
            assert rgb_hwc.shape[2:] == (3,), f"pictures are (h, w, 3), not {rgb_hwc.shape}"

    font = ImageFont.load_default(TITLE_SIZE)
    title_widths = [int(np.ceil(font.getlength(title))) for title in titles]
    widths = [max(title_widths[column] + GAP, *(scale * row[column].shape[1] for row in rows)) for column in range(len(titles))]
    heights = [scale * max(rgb_hwc.shape[0] for rgb_hwc in row) for row in rows]
    lefts = MARGIN + np.cumsum([0, *(width + GAP for width in widths)])
    tops = MARGIN + TITLE_HEIGHT + np.cumsum([0, *(height + GAP for height in heights)])

    sheet = Image.new("RGB", (int(lefts[-1]) - GAP + MARGIN, int(tops[-1]) - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for left, title in zip(lefts, titles, strict=False):
        draw.text((int(left), MARGIN), title, fill=INK, font=font)
    sheet_hwc = np.array(sheet)
    for top, row in zip(tops, rows, strict=False):
        for left, rgb_hwc in zip(lefts, row, strict=False):
            enlarged_hwc = rgb_hwc.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet_hwc[top : top + enlarged_hwc.shape[0], left : left + enlarged_hwc.shape[1]] = enlarged_hwc
    return sheet_hwc
