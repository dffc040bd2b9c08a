"""docs/security.md names the ports and the secrets that there are."""

import re
from pathlib import Path

import yaml
from ray._private import ray_constants

from colorize.doctor.listeners import USUAL_PORTS
from colorize.serve.keys import API_KEYS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
LAUNCHERS = [ROOT / "ray-cluster.yaml", *sorted((ROOT / "cluster" / "launcher").glob("*.yaml"))]


def ports_of_page() -> set[int]:
    section = PAGE.split("## What listens where")[1].split("##")[0]
    return {int(port) for line in section.splitlines() for port in re.findall(r"^\|[^|]*\| `(\d+)` \|", line)}


def ports_of_files() -> set[int]:
    """That the cluster's files name in their commands and settings."""
    found = {int(port) for path in LAUNCHERS for port in re.findall(r"-port=(\d+)", path.read_text())}
    found.add(yaml.safe_load((ROOT / "cluster" / "serve.yaml").read_text())["http_options"]["port"])
    found |= {
        int(port) for port in re.findall(r"--web\.listen-address=127\.0\.0\.1:(\d+)", (ROOT / "docs" / "observability.md").read_text())
    }
    return found


def test_the_page_names_every_port_and_no_other() -> None:
    assert ports_of_page() == ports_of_files() | set(USUAL_PORTS)


def test_the_doctor_knows_the_ports_that_ray_takes_by_itself() -> None:
    assert USUAL_PORTS.keys() >= {
        ray_constants.DEFAULT_PORT, ray_constants.DEFAULT_DASHBOARD_PORT, ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
    }  # fmt: skip


def test_no_file_of_the_cluster_opens_the_dashboard_or_goes_without_a_token() -> None:
    for path in LAUNCHERS:
        for start in re.findall(r"ray start[^\n]*", path.read_text()):
            assert "dashboard-host=0.0.0.0" not in start, path
        commands = re.findall(r"\S+ ray start", path.read_text())
        assert commands
        assert set(commands) == {"RAY_AUTH_MODE=token ray start"}, path


def test_every_variable_with_a_secret_is_one_that_is_read() -> None:
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=\w+)?`", PAGE))
    assert API_KEYS in named
    assert named == {API_KEYS, "RAY_AUTH_MODE"}


def test_nothing_of_ours_unpickles() -> None:
    """By the calls that would: `pickle.load(s)`, `np.load(allow_pickle=True)`, and `torch.load` of more than weights."""
    for path in (ROOT / "colorize").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"pickle\.loads?\(|allow_pickle=True|weights_only=False", text), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path
