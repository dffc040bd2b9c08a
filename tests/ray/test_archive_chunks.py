"""A worker's chunks, without Ray: pictures that are seen together come out as if each had been alone, and one that fails, fails alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from colorize.archive import painter as painter_module
from colorize.archive.journal import Journal
from colorize.archive.manifest import Row, to_rows
from colorize.archive.painter import Order, Painter, to_block
from colorize.archive.plan import IN_COLOR, Task
from colorize.storage.place import LocalPlace
from tests.models import small_model
from tests.pictures import encoded, grey_scene, rgb_scene

pytestmark = pytest.mark.ray

MODEL = small_model(working_size=64).to_bytes()
SIZES = [(60, 60), (60, 80), (80, 60), (60, 60), (90, 60)]
FILES = {f"{number:02}.png": encoded(grey_scene(*SIZES[number % 5]), "PNG") for number in range(22)} | {
    "05.png": b"text", "07.png": encoded(rgb_scene(), "PNG"), "11.png": encoded(grey_scene(), "PNG")[:-40], "20.png": b"",
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def painted(source: Path, target: Path, blocks: list[list[str]], *, begun: bool = False) -> dict[str, Row]:
    """The rows of some blocks, by path. `begun`: as if a worker had died over each block."""
    places = LocalPlace(source, "in"), LocalPlace(target, "out")
    journal = Journal(places[1], "run")
    journal.open()
    order = Order(source=places[0], target=places[1], source_identity=places[0].identity(), run_id="run", vividness=0.5)
    painter = Painter(order, MODEL)
    rows = {}
    for number, names in enumerate(blocks):
        if begun:
            journal.begin(str(number))
        tasks = [Task(path=name, size=len(FILES[name]), modified=1) for name in names]
        for row in to_rows(painter(to_block(str(number), tasks))):
            rows[row.path] = row
    journal.release()
    return rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name, data in FILES.items():
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path / "in"


def digests(rows: dict[str, Row]) -> dict[str, str | None]:
    return {path: row.target_sha256 for path, row in rows.items()}


def test_any_chunks_make_the_same_files(source: Path, tmp_path: Path) -> None:
    names = sorted(FILES)
    together = painted(source, tmp_path / "together", [names])
    assert [row.path for row in together.values()] == names
    bad = {path for path, row in together.items() if row.status == "failed"}
    assert bad == {"05.png", "11.png", "20.png"}
    assert (together["07.png"].status, together["07.png"].reason) == ("skipped", IN_COLOR)
    assert not any(row.program_error for row in together.values())
    assert len([row for row in together.values() if row.status == "coloured"]) == len(FILES) - 4
    assert all((row.seconds_predict or 0) > 0 for row in together.values() if row.status == "coloured")
    alone = painted(source, tmp_path / "alone", [[name] for name in names])
    resumed = painted(source, tmp_path / "resumed", [names[3:9], names[9:]], begun=True)
    assert digests(alone) == digests(together)
    assert len(resumed) == len(names) - 3
    assert digests(resumed).items() <= digests(together).items()


def test_a_chunk_ends_where_too_much_would_be_held(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    predict = painter_module.predict_in_batches

    def noted(colorizer: object, seen: list[np.ndarray], settings: object) -> object:
        held.append(len(seen))
        return predict(colorizer, seen, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(painter_module, "predict_in_batches", noted)
    names = [name for name in sorted(FILES) if name not in ("05.png", "07.png", "11.png", "20.png")]
    painted(source, tmp_path / "whole", [names])
    assert held == [16, 2]
    held.clear()
    monkeypatch.setattr(painter_module, "CHUNK_PIXELS", 10_000)
    painted(source, tmp_path / "pixels", [names])
    assert max(held) == 3  # of 3,600 to 5,400 pixels each
    held.clear()
    monkeypatch.setattr(painter_module, "CHUNK_BYTES", 1)
    painted(source, tmp_path / "bytes", [names])
    assert max(held) == 1


def test_one_that_the_network_cannot_take_fails_alone(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = painter_module.predict_in_batches

    def failing(colorizer: object, seen: list[np.ndarray], settings: object) -> object:
        if any(3 * L_hw.shape[0] >= 4 * L_hw.shape[1] for L_hw in seen):
            raise MemoryError
        return predict(colorizer, seen, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(painter_module, "predict_in_batches", failing)
    rows = painted(source, tmp_path / "out", [sorted(FILES)])
    tall = {f"{number:02}.png" for number in range(22) if number % 5 == 4}
    assert {path for path, row in rows.items() if row.program_error} == tall
    assert {rows[path].reason for path in tall}.pop().startswith("an error of this program: MemoryError")  # type: ignore[union-attr]
    assert len([row for row in rows.values() if row.status == "coloured"]) == len(FILES) - 4 - len(tall - {"20.png"})
