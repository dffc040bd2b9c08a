"""`COLORIZE_LOG=json`: what a bulk run says on standard error is JSON, line by line, and each line names the run of the manifest."""

import json
import subprocess
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from colorize.log import VARIABLE
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM, environment, left_behind

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_bulk_run_is_told_in_lines(tmp_path: Path) -> None:
    source, target, mark = tmp_path / "scans", tmp_path / "colour", uuid.uuid4().hex
    source.mkdir()
    (source / "a.jpg").write_bytes(encoded(grey_scene(), "JPEG", quality=90))
    (source / "b.jpg").write_bytes(b"no picture")
    result = subprocess.run(
        [PROGRAM, "archive", source, target, "--model", "cifar10", "--workers", "1"], capture_output=True, text=True, check=False,
        env=environment(mark) | {VARIABLE: "json"}, timeout=240,
    )  # fmt: skip
    assert result.returncode == 1, "a file failed"
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    [run] = set(pq.read_table(target / "_colorize/manifest/current.parquet")["run_id"].to_pylist())
    assert {(line["run"], line["stage"]) for line in lines} == {(run, "archive")}
    assert (lines[0]["message"], lines[0]["pictures"], lines[-1]["message"]) == ("run begins", 2, "run ends")
    assert (lines[-1]["coloured"], lines[-1]["failed"]) == (1, 1)
    [failure] = [line for line in lines if line["level"] == "warning"]
    assert failure["path"] == "b.jpg"
    assert "not a picture" in failure["reason"]
    assert left_behind(mark) == []
