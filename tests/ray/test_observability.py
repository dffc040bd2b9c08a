"""What the dashboard asks for is there: a bulk run and a training on a real Ray, and the metrics port of its node."""

import contextlib
import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray._private import worker as ray_worker

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import colorize_archive
from colorize.cluster import ClusterInfo
from colorize.data.dataset import load_dataset
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.run import fit
from tests.pictures import encoded, grey_scene
from tests.unit.test_observability import queries

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

Samples = dict[str, list[tuple[dict[str, str], float]]]


def scraped() -> Samples:
    """Every sample that the node's agent shows, by name."""
    [node] = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


class Scraper:
    """What the agent shows from now on, the newest value of each name: a gauge is gone some seconds after the actor that told it."""

    def __init__(self) -> None:
        self.found: Samples = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._done.wait(0.5):
            with contextlib.suppress(OSError):  # the agent is busy
                self.found |= scraped()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def session_logs() -> Path:
    node = ray_worker._global_node
    assert node is not None
    return Path(node.get_session_dir_path()) / "logs"


def total(found: Samples, name: str, **labels: str) -> float:
    return sum(value for at, value in found.get(name, []) if labels.items() <= at.items())


def _train(directory: Path) -> TrainConfig:
    config = TrainConfig(data="cifar10-sample", width=8, depth=2, size=32, limit=256, epochs=2, workers=2)
    run = RunDirectory(directory)
    run.create(config)
    fit(
        config, run, train=load_dataset("cifar10-sample", split="train", limit=256).dataset,
        validation=load_dataset("cifar10-sample", split="test", limit=100).dataset, on_report=lambda report: None,
    )  # fmt: skip
    return config


def test_every_metric_of_the_queries_is_exported(ray_cluster: ClusterInfo, tmp_path: Path) -> None:
    """While they run, as Prometheus would look."""
    source = tmp_path / "scans"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.jpg").write_bytes(encoded(grey_scene(), "JPEG", quality=90))
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    with Scraper() as scraper:
        summary = colorize_archive(ArchiveConfig(source=source, target=tmp_path / "colour", model="cifar10", workers=1))
        trained = _train(tmp_path / "observed-run")
        wanted = {name for query in queries() for name in re.findall(r"\bray_\w+", query)}
        assert len(wanted) > 20
        deadline = time.monotonic() + 90
        while (missing := wanted - set(scraper.found)) and time.monotonic() < deadline:
            time.sleep(1)
    assert missing == set()
    assert (summary.colored, summary.failed) == (3, 1)
    found = scraper.found

    logs = "".join(path.read_text(errors="replace") for path in session_logs().glob("worker-*.err"))
    assert re.search(rf"INFO \[archive {summary.run_id}\] worker begins model=cifar10", logs)
    assert re.search(r"INFO \[train observed-run\] worker begins rank=1 world=2", logs)

    run: dict[str, Any] = {"run": summary.run_id}
    assert total(found, "ray_colorize_archive_planned", **run) == 4
    assert total(found, "ray_colorize_archive_pictures_total", **run, status="coloured") == 3
    assert total(found, "ray_colorize_archive_failures_total", **run, cause="picture") == 1
    assert total(found, "ray_colorize_archive_megapixels_total", **run) == pytest.approx(summary.megapixels)
    assert total(found, "ray_colorize_archive_picture_seconds_count", **run) == 3
    steps = 251 // 2 // trained.worker_batch * trained.epochs
    for rank in "01":
        assert total(found, "ray_colorize_train_step_seconds_count", run="observed-run", rank=rank) == steps
        assert total(found, "ray_colorize_train_pictures_total", run="observed-run", rank=rank) == steps * trained.worker_batch
    assert total(found, "ray_colorize_train_epoch", run="observed-run") == trained.epochs
    assert 5 < total(found, "ray_colorize_train_psnr", run="observed-run") < 60
