"""What long runs measure of themselves, for Prometheus: series that are declared in one place and exported by Ray's agent on every node.

Knows nothing of pictures. A process of Ray counts for itself; Ray's agent on its node collects that every 10 s and shows it at the node's
metrics port as `ray_NAME`, with the process's WorkerId. So sums are the query's business, as they are with the service's own series
(`colorize.serve.meter`), which do not go through Ray.
A value costs 10 µs. Sixteen pictures of a bulk run are some thirty values: 0.3 ms, beside the 450 ms of the photo model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]

PREFIX = "ray_"
"""What Ray puts before every name."""

RUN = "run"
"""The label that every series has: the run's id, as in the manifest and in the logs."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One family of series."""

    name: str
    kind: Kind
    about: str
    tags: tuple[str, ...] = ()
    """Labels beside the run's."""
    bounds: tuple[float, ...] = ()
    """Of a histogram's buckets."""

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it."""
        name = PREFIX + self.name
        if self.kind == "counter":
            return (f"{name}_total",)
        return (name,) if self.kind == "gauge" else (f"{name}_bucket", f"{name}_sum", f"{name}_count")


RUNS = Series(
    name="colorize_run",
    kind="gauge",
    about="1 while a run is under way; gone when it is over; stage: archive or train.",
    tags=("stage",),
)
"""What a dashboard lists runs by; set by an actor of each, since Ray exports nothing of the driver that has started it."""


class Meter:
    """The series of one run in one process."""

    def __init__(self, series: Iterable[Series], run: str) -> None:
        self._made = {one: _made(one, run) for one in series}

    def record(self, series: Series, value: float = 1.0, **tags: str) -> None:
        """Adds to a counter, sets a gauge, or shows a histogram a value. Nothing added to a counter is nothing."""
        made = self._made[series]
        if series.kind == "gauge":
            made.set(float(value), tags)
        elif series.kind == "histogram":
            made.observe(float(value), tags)
        elif value > 0:
            made.inc(float(value), tags)


def _made(series: Series, run: str) -> Any:
    from ray.util import metrics

    tags = (RUN, *series.tags)
    if series.kind == "histogram":
        made: Any = metrics.Histogram(series.name, series.about, list(series.bounds), tags)
    else:
        made = (metrics.Counter if series.kind == "counter" else metrics.Gauge)(series.name, series.about, tags)
    return made.set_default_tags({RUN: run})
