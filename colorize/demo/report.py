"""The demo's report: one HTML page that holds everything, pictures included, and fetches nothing.

Knows nothing of Ray and of training: plain data in, a file out. The page's look and its standing text are in report.html; here is
what depends on the data. Pictures are scaled down only as far as the page's size needs: nine pairs of one megapixel fit as they
are, in a page of 3.2 MB. Everything that comes from outside is escaped, and the page's content security policy runs its own script only.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from colorize.demo.chart import Baseline, line_chart
from colorize.demo.embed import jpeg_uris, png_uri
from colorize.imaging.files import write_whole

PAGE_BYTES = 8_000_000
"""The archive's pictures are scaled down until the page is no larger."""

ROW_RATIO = 1240 / 430
"""Width ÷ height of a row of pictures at its best: as wide as the page, 430 pixels high."""

GREY, MEAN_COLOR = "grey", "mean_color"
"""The names in `DemoReport.scores` that are baselines, as `evaluate` calls them."""
_BASELINES = {GREY: "Grey: no colour at all", MEAN_COLOR: "The mean colour everywhere"}


@dataclass(frozen=True, kw_only=True)
class ArchivePair:
    """One picture of the archive, before and after."""

    name: str
    """What the page calls it: its path in the archive."""
    before: Path | bytes
    """The original, a JPEG or PNG file or its bytes."""
    after: Path | bytes
    """The coloured picture, likewise."""
    mean_confidence: float
    """0…1."""
    width: int
    """Of the original, in pixels."""
    height: int


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Small pictures to look at: what one model makes of them."""

    title: str
    """The model."""
    rows: Sequence[Sequence[npt.NDArray[np.uint8]]]
    """For each picture grey, predicted and true: RGB (h, w, 3) uint8."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the page shows, in the order of the page."""

    title: str
    lead: str
    """One or two sentences below the title: what was run, on what."""
    facts: Mapping[str, str]
    """Lines of label and text: cluster, versions, total time."""
    archive: Sequence[ArchivePair]
    failures: Sequence[tuple[str, str]]
    """Pictures of the archive that were not coloured: name, reason."""
    sheets: Sequence[Sheet]
    history: Sequence[Mapping[str, float]]
    """The finished epochs, each the fields of `colorize.train.progress.EpochReport`."""
    scores: Sequence[tuple[str, Mapping[str, float]]]
    """Models by name, and the baselines `GREY` and `MEAN_COLOR`, each with its scores by the keys of `colorize evaluate --json`.

    A score that is missing or NaN is shown as not measured.
    """
    commands: Sequence[tuple[str, str]]
    """What to try next: the command, what it does."""


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """A column of the table of scores."""

    key: str
    heading: str
    unit: str
    best: str
    """`high`, `low`, or `truth`: the nearer the score's ratio to that of the true pictures is to 1."""
    digits: int
    scale: float = 1.0
    """From the score to what is shown."""


_METRICS = (
    _Metric(key="ssim", heading="SSIM", unit="0 to 1", best="high", digits=4),
    _Metric(key="psnr_mean", heading="PSNR, mean", unit="dB", best="high", digits=2),
    _Metric(key="psnr_pooled", heading="PSNR, pooled", unit="dB", best="high", digits=2),
    _Metric(key="rgb_mae", heading="RGB error", unit="0 to 1", best="low", digits=4),
    _Metric(key="ab_mae", heading="ab error", unit="ab units", best="low", digits=2),
    _Metric(key="ciede2000", heading="CIEDE2000", unit="ΔE", best="low", digits=2),
    _Metric(key="colorfulness", heading="Colourfulness", unit="0 for grey", best="truth", digits=1),
    _Metric(key="colorfulness_ratio", heading="Colourfulness ÷ truth", unit="best at 1", best="truth", digits=2),
    _Metric(key="within_5", heading="Within 5", unit="% of pixels", best="high", digits=1, scale=100),
)
_ARROWS = {"high": ("↑", "higher is better"), "low": ("↓", "lower is better"), "truth": ("≈", "nearer to the truth is better")}


def write_report(path: Path, report: DemoReport) -> None:
    """Writes the page to `path`, whole or not at all, replacing the page of an earlier run.

    Raises PictureError for a picture of the archive that cannot be read, and where the page cannot be written.
    """
    template = files("colorize.demo").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        "title": _text(report.title),
        "lead": _text(report.lead),
        "policy": _policy(template),
        "highlights": _highlights(report),
        "facts": "".join(f"<div><dt>{_text(label)}</dt><dd>{_text(text)}</dd></div>" for label, text in report.facts.items()),
        "failures": _failures(report.failures),
        "sheets": "".join(map(_sheet, report.sheets)) or _nothing("No sheet was made."),
        "curves": _curves(report.history),
        "history": _history_table(report.history),
        "scores": _score_table(report.scores),
        "ssim": _ssim_sentence(report.scores),
        "commands": "".join(_command(command, text) for command, text in report.commands),
    }
    room = PAGE_BYTES - len(template.encode()) - sum(len(part.encode()) for part in parts.values())
    page = Template(template).substitute(parts, archive=_archive(report.archive, room))
    write_whole(path, page.encode())


def gallery_rows(ratios: Sequence[float]) -> list[list[int]]:
    """Splits pictures, in order, into rows of about equal height, given width ÷ height of each: indices by row.

    The least sum of squared logarithms of (row's ratio ÷ `ROW_RATIO`), by dynamic programming as in Knuth's line breaking.
    """
    costs, starts = [0.0], [0]
    for end in range(1, len(ratios) + 1):
        options = [
            (costs[start] + math.log(sum(ratios[start:end]) / ROW_RATIO) ** 2, start)
            # Beyond twice the ratio a row is never the best one.
            for start in range(end)
            if start == end - 1 or sum(ratios[start:end]) < 2 * ROW_RATIO
        ]
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    rows: list[list[int]] = []
    end = len(ratios)
    while end:
        rows.insert(0, list(range(starts[end], end)))
        end = starts[end]
    return rows


def _policy(template: str) -> str:
    """The content security policy: pictures from the page itself, the page's own script, nothing else."""
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    assert script, "the template has a script"
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _highlights(report: DemoReport) -> str:
    """Up to three figures that sum the page up."""
    figures = []
    if report.archive:
        figures.append((f"{len(report.archive):,}", "photographs of the archive put into colour"))
    scores = dict(report.scores)
    models = [name for name, _ in report.scores if name not in _BASELINES]
    if models and GREY in scores and all("psnr_mean" in scores[name] for name in (models[0], GREY)):
        gain = scores[models[0]]["psnr_mean"] - scores[GREY]["psnr_mean"]
        figures.append((f"{_signed(gain, 2)} dB", f"PSNR compared with grey: {models[0]}"))
    if report.history:
        figures.append((f"{len(report.history):,}", f"epochs trained, {report.history[-1]['pictures_per_second']:,.0f} pictures a second"))
    return "".join(f"<li><strong>{_text(figure)}</strong> <span>{_text(text)}</span></li>" for figure, text in figures)


def _archive(pairs: Sequence[ArchivePair], room: int) -> str:
    """The gallery of before and after, in at most `room` bytes if `SHORTEST_LONG_SIDE` allows."""
    if not pairs:
        return _nothing("No picture was coloured.")
    images = jpeg_uris([(pair.name, pair.before, pair.after) for pair in pairs], room - 2000 * len(pairs))
    rows = gallery_rows([width / height for _, _, width, height in images])
    return "".join(f'<div class="row">{"".join(_pair(pairs[i], *images[i]) for i in row)}</div>' for row in rows)


def _pair(pair: ArchivePair, before: str, after: str, width: int, height: int) -> str:
    name = _text(pair.name)
    confidence = round(100 * pair.mean_confidence)
    return (
        f'<figure class="pair" style="--ratio:{width / height:.4f}">'
        f'<div class="compare" style="aspect-ratio:{width}/{height}">'
        f'<img class="after" src="{after}" width="{width}" height="{height}" alt="{name}, in colour" decoding="async">'
        f'<img class="before" src="{before}" width="{width}" height="{height}" alt="{name}, the original" decoding="async">'
        f'<input type="range" min="0" max="100" step="0.1" value="50" aria-label="How much of {name} is shown as the original">'
        '<span class="handle" aria-hidden="true"><i></i></span>'
        '<span class="tag left" aria-hidden="true">Original</span><span class="tag right" aria-hidden="true">Colour</span></div>'
        f'<figcaption><span class="name">{name}</span>'
        f'<button type="button" class="enlarge" aria-label="Enlarge {name}">Enlarge</button>'
        f'<span class="details"><span>{pair.width:,} × {pair.height:,} pixels</span> <span>Confidence '
        f'<span class="meter" aria-hidden="true"><i style="width:{confidence}%"></i></span>{confidence} %</span></span>'
        "</figcaption></figure>"
    )


def _failures(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    heading = "1 picture was not coloured" if len(failures) == 1 else f"{len(failures):,} pictures were not coloured"
    items = "".join(f"<li><code>{_text(name)}</code> {_text(reason)}</li>" for name, reason in failures)
    return f'<div class="failures"><h3>{heading}</h3><ul>{items}</ul></div>'


def _sheet(sheet: Sheet) -> str:
    groups = "".join(
        f'<li><div class="tiles" role="img" aria-label="Picture {number}: grey, predicted, true">{"".join(map(_tile, row))}</div></li>'
        for number, row in enumerate(sheet.rows, 1)
    )
    heads = f'<div class="columns">{"".join(f"<span>{column}</span>" for column in ("grey", "predicted", "true"))}</div>' * 3
    return (
        f'<article class="sheet"><h3>{_text(sheet.title)}</h3>'
        f'<div class="heads" aria-hidden="true">{heads}</div><ol>{groups}</ol></article>'
    )


def _tile(rgb_hwc: npt.NDArray[np.uint8]) -> str:
    return f'<img src="{png_uri(rgb_hwc)}" alt="" width="96" height="96">'


def _curves(history: Sequence[Mapping[str, float]]) -> str:
    """Loss, SSIM and PSNR by epoch, the last two with what grey pictures score."""
    charts = []
    for key, title, unit, digits in (("loss", "Loss", "nats", 3), ("ssim", "SSIM", "0 to 1", 4), ("psnr", "PSNR", "dB", 2)):
        points = [(epoch["epoch"], epoch[key]) for epoch in history if math.isfinite(epoch[key])]
        if not points:
            continue
        gain = f"{key}_gain"
        greys = [epoch[key] - epoch[gain] for epoch in history if gain in epoch and math.isfinite(epoch[key] - epoch[gain])]
        baseline = Baseline(label="grey", value=greys[-1]) if greys else None
        last = f"{title} by epoch: {points[-1][1]:.{digits}f} at the last of {len(points)}"
        label = last + (f"; grey alone scores {baseline.value:.{digits}f}" if baseline else "")
        chart = line_chart(points, label=label, x_label="epoch", y_label=unit, digits=digits, baseline=baseline)
        better = "lower is better" if key == "loss" else "higher is better"
        charts.append(f"<figure><figcaption><h3>{title}</h3> <span>{better}</span></figcaption>{chart}</figure>")
    return f'<div class="charts">{"".join(charts)}</div>' if charts else _nothing("No epoch was finished.")


def _history_table(history: Sequence[Mapping[str, float]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{epoch["epoch"]:.0f}</th><td>{epoch["loss"]:.3f}</td>'
        f"<td>{epoch['ssim']:.4f}</td><td>{_signed(epoch['ssim_gain'], 4)}</td>"
        f"<td>{epoch['psnr']:.2f}</td><td>{_signed(epoch['psnr_gain'], 2)}</td>"
        f"<td>{epoch['pictures_per_second']:,.0f}</td><td>{epoch['seconds']:,.0f}</td></tr>"
        for epoch in history
    )
    if not rows:
        return ""
    headings = ("Epoch", "Loss", "SSIM", "over grey", "PSNR (dB)", "over grey", "Pictures a second", "Seconds so far")
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        "<details><summary>The same as a table</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="The epochs of the training">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _score_table(scores: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """One row a model or baseline, one column a metric, the best of each column marked.

    The roles are spelt out because narrow screens show the rows as cards, and the change of `display` would take them away.
    """
    if not scores:
        return _nothing("Nothing was evaluated.")
    head = "".join(
        f'<th scope="col" role="columnheader">{metric.heading}&nbsp;<span aria-hidden="true">{_ARROWS[metric.best][0]}</span>'
        f'<small>{_unit(metric, scores)}<span class="unseen">, {_ARROWS[metric.best][1]}</span></small></th>'
        for metric in _METRICS
    )
    merits = {metric.key: [_merit(metric, values) for _, values in scores] for metric in _METRICS}
    body = ""
    for index, (name, values) in enumerate(scores):
        cells = ""
        for metric in _METRICS:
            best = max((merit for merit in merits[metric.key] if merit is not None), default=None)
            cells += _score_cell(metric, values.get(metric.key), best=best is not None and merits[metric.key][index] == best)
        kind = ' class="baseline"' if name in _BASELINES else ""
        body += f'<tr role="row"{kind}><th scope="row" role="rowheader">{_text(_BASELINES.get(name, name))}</th>{cells}</tr>'
    return (
        '<table class="scores" role="table" aria-label="Scores of the models and the baselines">'
        f'<thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Model</th>{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )


def _unit(metric: _Metric, scores: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """The unit; for the colourfulness, what the true pictures have of it, where that can be told."""
    if metric.key == "colorfulness":
        for _, values in scores:
            value, ratio = values.get("colorfulness", math.nan), values.get("colorfulness_ratio", math.nan)
            if math.isfinite(value) and ratio > 0:
                return f"truth: {value / ratio:.{metric.digits}f}"
    return metric.unit


def _score_cell(metric: _Metric, value: float | None, *, best: bool) -> str:
    label = f'<span class="label" aria-hidden="true">{metric.heading} {_ARROWS[metric.best][0]}</span>'
    if value is None or not math.isfinite(value):
        return f'<td role="cell">{label}<span><span aria-hidden="true">–</span><span class="unseen">not measured</span></span></td>'
    shown = f"{value * metric.scale:.{metric.digits}f}"
    mark = f'<b>{shown}<span class="unseen"> (best)</span></b>' if best else shown
    return f'<td role="cell">{label}<span>{mark}</span></td>'


def _merit(metric: _Metric, scores: Mapping[str, float]) -> float | None:
    """The higher the better, as far as the table shows it; None where there is nothing to compare."""
    key = "colorfulness_ratio" if metric.best == "truth" else metric.key
    value = scores.get(key)
    if value is None or not math.isfinite(value):
        return None
    value = round(value * metric.scale, next(other.digits for other in _METRICS if other.key == key))
    return {"high": value, "low": -value, "truth": -abs(value - 1)}[metric.best]


def _ssim_sentence(scores: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    grey = dict(scores).get(GREY, {}).get("ssim")
    share = "most of the score" if grey is None else f"{grey:.3f} here"
    return (
        f"SSIM mostly compares light and dark, which a grey picture already has right: grey alone scores {share}, "
        "so read how far above that a model comes, not how near to 1."
    )


def _command(command: str, text: str) -> str:
    words = " ".join(f"<span>{_text(word)}</span>" for word in command.split(" "))  # lines break between words, not at hyphens
    return (
        f'<li><p>{_text(text)}</p><div class="command"><pre tabindex="0"><code>{words}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div></li>'
    )


def _signed(value: float, digits: int) -> str:
    """With its sign; a typographic minus, so that a screen reader does not take it for a dash."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _nothing(text: str) -> str:
    return f'<p class="nothing">{text}</p>'


def _text(text: str) -> str:
    """Escaped for HTML, with `?` for what no page can show: control characters, bytes of file names that are not UTF-8."""
    return escape("".join(character if character.isprintable() or character == "\n" else "?" for character in text))
