"""The simulation behind docs/scaling.md: bound by what limits it, the same for one seed, slower where nodes are taken away."""

import dataclasses
from pathlib import Path

import pytest

from jobs.benchmarks import stages
from jobs.benchmarks.stages import measure
from jobs.scaling import ASSUMED, Assumption, Cluster, Measured, dollars_a_million, limits, recorded, simulate

TEN = Cluster(name="ten", nodes=10, has_gpus=False)


@pytest.fixture
def measured() -> Measured:
    return Measured(
        hardware="a core", pictures=10, megapixels=1.0, read=0.001, decode=0.01, predict=0.03, encode=0.02, write=0.003, source_bytes=3e5,
        target_bytes=4e5, listed=1e-4, driver=1e-4, row_bytes=450, manifest_bytes=200, predict_flops=1e9,
    )  # fmt: skip


def assume(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    for name, value in values.items():
        monkeypatch.setitem(ASSUMED, name, Assumption(value, "", ""))


def test_what_limits_a_run(measured: Measured) -> None:
    cpus = limits(measured, TEN)
    assert cpus["CPUs of the workers"] == pytest.approx(10 * 8 / 0.064)
    assert cpus["network of the nodes"] == pytest.approx(10 * 0.625e9 / 4e5)
    assert "GPUs" not in cpus
    gpus = limits(measured, dataclasses.replace(TEN, has_gpus=True))
    assert gpus["CPUs of the workers"] == pytest.approx(10 * 4 / 0.034)
    assert gpus["GPUs"] == pytest.approx(10 * 31.2e12 * 0.2 / 1e9)


@pytest.mark.parametrize("nodes", [1, 10, 100])
def test_without_losses_a_run_is_as_fast_as_its_slowest_part(measured: Measured, monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    assume(monkeypatch, taken_away=1e-9)
    cluster = dataclasses.replace(TEN, nodes=nodes)
    least = min(limits(measured, cluster).values())
    assert simulate(measured, cluster) == pytest.approx(least, rel=0.06)


def test_a_slow_driver_is_the_limit(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    assume(monkeypatch, taken_away=1e-9)
    slow = dataclasses.replace(measured, driver=0.01)
    assert simulate(slow, TEN) == pytest.approx(limits(slow, TEN)["driver"], rel=0.02)


def test_nodes_that_are_taken_away_cost_their_absence(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    assume(monkeypatch, taken_away=1e-9)
    undisturbed = simulate(measured, TEN, hours=20)
    assume(monkeypatch, taken_away=2.0)
    # Half an hour of work, then five minutes of absence.
    assert simulate(measured, TEN, hours=20) == pytest.approx(undisturbed * 30 / 35, rel=0.05)
    assert simulate(measured, TEN, seed=1) == simulate(measured, TEN, seed=1)


def test_a_million_pictures_cost_machines_and_requests() -> None:
    machines, requests = dollars_a_million(TEN, 1000.0)
    assert machines == pytest.approx(10 * 0.714 * 0.4 / 3600 * 1000)
    assert requests == pytest.approx((2 + 1 / 16) * 0.4 + (1 + 4 / 16) * 5)


def test_the_record_is_of_what_the_program_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.resources import files

    monkeypatch.setattr(stages, "LISTED", 200)
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, cores: None)
    found, before = measure(Path(str(files("colorize") / "sample" / "archive"))), recorded()
    assert found.pictures > 0
    assert found.predict_flops == before.predict_flops
    assert found.row_bytes == pytest.approx(before.row_bytes, rel=0.5)
    assert min(found.manifest_bytes, found.read, found.decode, found.predict, found.encode, found.write, found.listed, found.driver) > 0
