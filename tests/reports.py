"""A demo report for tests: small pictures, names that are markup, a score that is missing."""

import math

import numpy as np

from colorize.demo.report import GREY, MEAN_COLOR, ArchivePair, DemoReport, Sheet
from tests.pictures import encoded, grey_scene, rgb_scene

NAME = """<img src=x onerror="alert('1')">&amp;.jpg"""

SHIPPED = {
    "ssim": 0.9412, "psnr_mean": 25.68, "psnr_pooled": 23.91, "rgb_mae": 0.0402, "ab_mae": 7.61, "ciede2000": 9.1,
    "colorfulness": 19.2, "colorfulness_ratio": 0.6, "within_5": 0.412,
}  # fmt: skip
TRAINED = {
    "ssim": 0.9287, "psnr_mean": 23.55, "psnr_pooled": 22.14, "rgb_mae": 0.0533, "ab_mae": 9.9, "ciede2000": 11.9,
    "colorfulness": 38.4, "colorfulness_ratio": 1.2, "within_5": 0.301,
}  # fmt: skip
AT_GREY = {
    "ssim": 0.9336, "psnr_mean": 24.81, "psnr_pooled": 22.81, "rgb_mae": 0.0477, "ab_mae": 9.34, "ciede2000": 11.2,
    "colorfulness": 0.0, "colorfulness_ratio": 0.0, "within_5": 0.388,
}  # fmt: skip


def epoch(number: int) -> dict[str, float]:
    """A finished epoch of a run of three, better than grey (0.93, 25 dB) from the second on."""
    return {
        "epoch": number, "epochs": 3, "loss": 4.5 - 0.4 * number, "ssim": 0.927 + 0.002 * number, "psnr": 24.5 + 0.3 * number,
        "ssim_gain": 0.002 * number - 0.003, "psnr_gain": 0.3 * number - 0.5, "pictures_per_second": 1234.5, "seconds": 20.0 * number,
    }  # fmt: skip


def archive_pair(name: str, height: int, width: int) -> ArchivePair:
    """A grey scene and the same in colour, as JPEG files in memory."""
    return ArchivePair(
        name=name,
        before=encoded(grey_scene(height, width), "JPEG"),
        after=encoded(rgb_scene(height, width), "JPEG"),
        mean_confidence=0.37,
        width=width,
        height=height,
    )


def demo_report(**changes: object) -> DemoReport:
    """A report with something in every section; `changes` replaces fields."""
    tile_hwc = rgb_scene(32, 32)
    row = [np.repeat(grey_scene(32, 32)[..., None], 3, axis=2), tile_hwc // 2, tile_hwc]
    fields: dict[str, object] = {
        "title": "Colour & <light>",
        "lead": "One run of everything.",
        "facts": {"Cluster": "Ray 2.60.0: started here, 2 CPUs", "Time": "3 min 05 s"},
        "archive": [archive_pair(NAME, 300, 420), archive_pair("box/tall.jpg", 480, 300), archive_pair("box/wide.jpg", 200, 500)],
        "failures": [("<b>broken</b>.jpg", "is a truncated or damaged JPEG")],
        "sheets": [Sheet(title="the model that ships", rows=[row] * 4), Sheet(title="the model <i>just</i> trained", rows=[row] * 4)],
        "history": [epoch(1), epoch(2), epoch(3)],
        "scores": [
            ("the model that ships", SHIPPED),
            ("the model just trained", TRAINED),
            (GREY, AT_GREY),
            (MEAN_COLOR, AT_GREY | {"ssim": 0.9339, "within_5": math.nan}),
        ],
        "commands": [
            ("colorize picture old.jpg -o colored", "One picture."),
            ("colorize archive scans colored", "A whole folder."),
            ("colorize train --data cifar10", "Train <more>."),
        ],
    }
    return DemoReport(**(fields | changes))  # type: ignore[arg-type]
