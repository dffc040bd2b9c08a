"""The dashboard, the alerts and docs/observability.md speak of the metrics that there are, and of all of them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import promql_parser
import pytest
import torch
import yaml

from colorize.archive import meter as archive
from colorize.archive.manifest import Row
from colorize.serve.meter import IngressMeter, ModelMeter
from colorize.telemetry import RUN, RUNS, Series
from colorize.train import meter as train
from colorize.train.config import TrainConfig
from colorize.train.loop import Clock
from colorize.train.progress import EpochReport, StepReport

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster" / "observability"
BOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())
PAGE = (ROOT / "docs" / "observability.md").read_text()

OURS = (RUNS, *archive.SERIES, *train.SERIES)
OF_RAY = {
    "ray_node_cpu_count", "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_mem_total", "ray_node_disk_utilization_percentage",
    "ray_object_store_memory", "ray_node_network_receive_speed", "ray_node_network_send_speed",
}  # fmt: skip
"""That Ray itself exports: tests/ray/test_observability.py finds them on a real one."""


def of_service() -> set[str]:
    """The sample names of the service's series."""
    names = set()
    for series in (*IngressMeter().series(), *ModelMeter().series()):
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[series.kind]
        names |= {series.name + end for end in ends}
    return names


EXISTING = {name for series in OURS for name in series.exported} | of_service() | OF_RAY | {"up"}
LABELS = {series.exported[0].removesuffix("_total").removesuffix("_bucket"): {RUN, *series.tags} for series in OURS}


def panels() -> Iterator[dict[str, Any]]:
    for panel in BOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries() -> list[str]:
    found = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    found += [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """The vector selectors of a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(expression, name, None)
        if inner is not None and type(inner).__module__ == type(expression).__module__:
            yield from selectors(inner)
    for inner in getattr(expression, "args", None) or []:
        yield from selectors(inner)


def parsed(query: str) -> list[Any]:
    filled = query.replace("$__rate_interval", "5m").replace("$run", ".*")
    assert "$" not in filled, f"{query}: an unknown variable"
    return list(selectors(promql_parser.parse(filled)))


@pytest.mark.parametrize("query", queries())
def test_a_query_is_promql_and_asks_for_what_there_is(query: str) -> None:
    found = parsed(query)
    assert found
    for selector in found:
        assert selector.name in EXISTING, f"{selector.name} is exported by nobody"


@pytest.mark.parametrize("query", queries())
def test_a_query_groups_by_labels_that_its_metrics_have(query: str) -> None:
    names = {re.sub(r"_(total|bucket|sum|count)$", "", selector.name) for selector in parsed(query)}
    if not names <= set(LABELS):
        return  # of Ray or the service: their labels are theirs
    known = set.union(*(LABELS[name] for name in names)) | {"le"}
    for listed in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in listed.split(",")} <= known, query
    for label in re.findall(r'(\w+)(?:=~|=)"', query):
        assert label in known, query


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {selector.name for panel in panels() for target in panel.get("targets", []) for selector in parsed(target["expr"])}
    for series in OURS:
        assert shown & set(series.exported), f"{series.name} is on no panel"


def test_the_dashboard_is_whole() -> None:
    assert [key for key, count in Counter(panel["id"] for panel in panels()).items() if count > 1] == []
    assert [one["name"] for one in BOARD["templating"]["list"]] == ["datasource", "run"]
    assert parsed(re.fullmatch(r"label_values\((\w+), run\)", BOARD["templating"]["list"][1]["definition"])[1])[0].name in EXISTING  # type: ignore[index]
    assert {panel["title"] for panel in panels() if panel["type"] == "row"} == {"Bulk runs", "Training", "Service", "Cluster"}
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


def test_every_alert_says_what_is_so_and_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_prometheus_scrapes_the_cluster_and_the_service() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    ray, service = config["scrape_configs"]
    assert ray["file_sd_configs"][0]["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    assert service["metrics_path"] == "/metrics"
    assert service["authorization"]["credentials_file"], "the key is in a file, not here"
    assert config["rule_files"] == ["alerts.yml"]
    assert service["job_name"] in next(rule["expr"] for rule in ALERTS["groups"][0]["rules"] if rule["alert"] == "ColorizeServiceDown")


def test_the_page_lists_the_metrics_with_their_labels_and_no_others() -> None:
    listed = {}
    for line in PAGE.splitlines():
        if row := re.fullmatch(r"\| `(ray_colorize_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|", line):
            listed[row[1]] = (row[2], {label.strip("` ") for label in row[3].split(",") if label.strip()}, row[4].strip())
    expected = {}
    for series in OURS:
        name = f"ray_{series.name}" + ("_total" if series.kind == "counter" else "")
        expected[name] = (series.kind, {RUN, *series.tags}, series.about)
    assert listed == expected


def test_names_are_unique_and_prometheus_takes_them() -> None:
    assert len({series.name for series in OURS}) == len(OURS)
    for series in OURS:
        assert re.fullmatch(r"colorize_[a-z_]+", series.name)
        assert not series.name.endswith("_total"), "the exporter adds it"


# What is counted


class Recorded:
    """Stands for a `Meter`: keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], list[float]] = {}

    def record(self, series: Series, value: float = 1.0, **tags: str) -> None:
        assert set(tags) == set(series.tags), "Ray refuses a missing label and drops an unknown one"
        self.values.setdefault((series.name, *tags.values()), []).append(value)


def test_rows_are_counted_once_a_picture_and_by_what_became_of_them() -> None:
    meter = archive.ArchiveMeter("run")
    meter._meter = recorded = Recorded()  # type: ignore[assignment]
    seconds = {"seconds_read": 0.1, "seconds_decode": 0.2, "seconds_predict": 0.3, "seconds_encode": 0.4, "seconds_write": 0.5}
    made = {"status": "coloured", "width": 2000, "height": 1000, "source_bytes": 100, "target_bytes": 150, "run_id": "run"}
    meter.planned(5)
    assert recorded.values == {("colorize_run", "archive"): [1], ("colorize_archive_planned",): [5]}
    recorded.values.clear()
    meter.count(
        [
            Row(path="two-pages.tif", page=0, **made, **seconds), Row(path="two-pages.tif", page=1, **made),
            Row(path="a.jpg", status="failed", reason="cannot be read: gone", run_id="run"),
            Row(path="b.jpg", status="failed", reason="an error of this program: …", program_error=True, run_id="run"),
            Row(path="c.jpg", status="skipped", reason="is in colour", source_bytes=7, run_id="run"),
        ]
    )  # fmt: skip
    values = {key: sum(value) for key, value in recorded.values.items() if sum(value)}
    assert values == {
        ("colorize_archive_pictures", "coloured"): 1, ("colorize_archive_pictures", "failed"): 2,
        ("colorize_archive_pictures", "skipped"): 1,
        ("colorize_archive_failures", "source"): 1, ("colorize_archive_failures", "program"): 1,
        ("colorize_archive_megapixels",): 4.0, ("colorize_archive_bytes", "in"): 107, ("colorize_archive_bytes", "out"): 150,
        ("colorize_archive_stage_seconds", "read"): 0.1, ("colorize_archive_stage_seconds", "decode"): 0.2,
        ("colorize_archive_stage_seconds", "predict"): 0.3, ("colorize_archive_stage_seconds", "encode"): 0.4,
        ("colorize_archive_stage_seconds", "write"): 0.5, ("colorize_archive_picture_seconds",): 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("is text, not a picture", "picture"),
        ("cannot be read: permission denied", "source"),
        ("the target cannot be written: no space left on device", "target"),
        ("its confidence map cannot be written: quota", "target"),
        ("the worker process died over it 2 times (out of memory?)", "worker"),
    ],
)
def test_causes_are_a_handful_of_words(reason: str, cause: str) -> None:
    assert archive.cause_of(Row(path="a", status="failed", reason=reason, run_id="run")) == cause


def test_a_workers_clock_counts_every_step_by_its_rank() -> None:
    config = TrainConfig(data="cifar10-sample", epochs=2, batch_size=8, workers=2)
    setup = SimpleNamespace(config=config, board=None)
    learner = SimpleNamespace(config=config, step=0, steps=4, device=torch.device("cpu"))
    meter = train.WorkerMeter("run", 1)
    meter._meter = recorded = Recorded()  # type: ignore[assignment]
    clock = Clock(setup, learner, meter, 2)  # type: ignore[arg-type]
    for epoch in (1, 2):
        clock.start_epoch(epoch)
        for _ in range(2):
            learner.step += 1
            clock.tick(torch.tensor(1.0), post=False)
    assert recorded.values["colorize_train_pictures", "1"] == [4, 4, 4, 4]
    seconds = recorded.values["colorize_train_step_seconds", "1"]
    assert len(seconds) == 4
    assert all(second >= 0 for second in seconds)


def test_a_workers_clock_tells_where_the_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.train.loop.REPORT_SECONDS", 0.0)
    config = TrainConfig(data="cifar10-sample", epochs=2, batch_size=8, workers=2)
    told: list[StepReport] = []
    setup = SimpleNamespace(config=config, board=SimpleNamespace(post=SimpleNamespace(remote=told.append)))
    learner = SimpleNamespace(config=config, step=0, steps=4, device=torch.device("cpu"))
    clock = Clock(setup, learner, SimpleNamespace(step=lambda pictures, seconds: None), 2)  # type: ignore[arg-type]
    for epoch in (1, 2):
        clock.start_epoch(epoch)
        for loss in (3.0, 1.0):
            learner.step += 1
            clock.tick(torch.tensor(loss), post=True)
    assert [(one.epoch, one.step, one.steps, one.loss) for one in told] == [(1, 1, 4, 3.0), (1, 2, 4, 1.0), (2, 3, 4, 3.0), (2, 4, 4, 1.0)]
    assert all(one.pictures_per_second > 0 <= one.seconds_left for one in told)
    assert told[-1].seconds_left == 0


def test_the_board_tells_finished_epochs() -> None:
    meter = train.BoardMeter("run")
    meter._meter = recorded = Recorded()  # type: ignore[assignment]
    meter.show(StepReport(epoch=1, step=1, steps=2, loss=9.0, pictures_per_second=1.0, seconds_left=1.0))
    assert recorded.values == {}
    meter.show(
        EpochReport(
            epoch=1, epochs=3, loss=2.5, ssim=0.9, psnr=24.0, ssim_gain=0.0, psnr_gain=0.0, pictures_per_second=100.0, seconds=9.0,
        )
    )  # fmt: skip
    assert recorded.values == {
        ("colorize_train_epoch",): [1], ("colorize_train_epochs",): [3], ("colorize_train_loss",): [2.5], ("colorize_train_psnr",): [24.0],
        ("colorize_train_ssim",): [0.9], ("colorize_train_pictures_per_second",): [100.0],
    }  # fmt: skip
