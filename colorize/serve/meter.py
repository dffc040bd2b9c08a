"""What the service measures of itself, for `/metrics`: Prometheus series of one replica, and the page with those of all.

Knows nothing of HTTP or Ray. Every replica counts for itself, and every series carries the replica that it is of: sums are the query's
business (`sum without (replica) (rate(…))`). Added up here, a counter would fall whenever a replica ends, which Prometheus takes for a
restart of all; and one of the replicas, asked at random, would show a third of the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 64)


@dataclass(frozen=True)
class Series:
    """One family of one replica, as it travels."""

    name: str
    kind: str
    about: str
    samples: tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]
    """(name, labels, value)."""


class _Meter:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()

    def series(self) -> list[Series]:
        """Everything measured so far."""
        return [Series(metric.name, metric.type, metric.documentation, _samples(metric)) for metric in self._registry.collect()]


def _samples(metric: Metric) -> tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]:
    """Without the times at which the counters were made, which nobody asks for."""
    return tuple((one.name, tuple(one.labels.items()), one.value) for one in metric.samples if not one.name.endswith("_created"))


class IngressMeter(_Meter):
    """What an ingress replica sees."""

    def __init__(self) -> None:
        super().__init__()
        registry = self._registry
        self._requests = Counter("colorize_requests", "Requests answered.", ["route", "method", "status"], registry=registry)
        self._seconds = Histogram(
            "colorize_request_seconds", "From a request's head to its answer's end.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._working = Gauge("colorize_requests_in_flight", "Requests that are worked on.", registry=registry)
        self._pictures = Counter("colorize_pictures", "Pictures coloured.", ["model"], registry=registry)
        self._megapixels = Counter("colorize_megapixels", "Megapixels coloured.", ["model"], registry=registry)
        self._failures = Counter("colorize_failures", "Pictures and requests that failed, by cause.", ["cause"], registry=registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. route: the path's pattern, never the path, since a client could make any number of those."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def working(self, requests: int) -> None:
        """So many are worked on now."""
        self._working.set(requests)

    def colored(self, model: str, pixels: int) -> None:
        """A picture was coloured."""
        self._pictures.labels(model).inc()
        self._megapixels.labels(model).inc(pixels / 1e6)

    def failed(self, cause: str) -> None:
        """A picture or a request failed. cause: one of a handful of words."""
        self._failures.labels(cause).inc()


class ModelMeter(_Meter):
    """What a model replica sees."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes = Histogram(
            "colorize_batch_size", "Pictures that the network was shown together.", buckets=_SIZES, registry=self._registry
        )
        self._seconds = Histogram(
            "colorize_batch_seconds", "How long the network took for a batch.", buckets=_SECONDS, registry=self._registry
        )
        self._queue = Gauge("colorize_queue", "Pictures that wait for the network or are with it.", registry=self._registry)

    def batch(self, size: int, seconds: float) -> None:
        """The network was shown a batch."""
        self._sizes.observe(size)
        self._seconds.observe(seconds)

    def waiting(self, pictures: int) -> None:
        """So many wait now."""
        self._queue.set(pictures)


class _Collected(Collector):
    def __init__(self, replicas: dict[str, list[Series]]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for replica, found in self._replicas.items():
            for series in found:
                family = families.setdefault(series.name, Metric(series.name, series.about, series.kind))
                for name, labels, value in series.samples:
                    family.add_sample(name, {**dict(labels), "replica": replica}, value)
        yield from families.values()


def page(replicas: Iterable[tuple[str, list[Series]]]) -> bytes:
    """The measurements of all replicas in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(dict(replicas)))
    return generate_latest(registry)
