"""The cluster launcher's files are what Ray itself takes, with its defaults filled in; and they keep to what docs/cluster.md promises."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.providers import _get_default_config
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "ray-cluster.yaml", ROOT / "cluster/launcher/gcp.yaml", ROOT / "cluster/launcher/local.yaml"]
CLOUDS = FILES[:2]


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_it(path: Path) -> None:
    filled = prepare_config(read(path))
    validate_config(filled)
    assert filled["cluster_name"] == "colorize"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_default_is_left_that_would_open_or_unpin_it(path: Path) -> None:
    """Ray's defaults install a nightly wheel and bind the dashboard to every interface."""
    config = read(path)
    defaults = _get_default_config(config["provider"])
    filled = fillout_defaults(copy.deepcopy(config))
    for key in ("setup_commands", "head_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        if defaults.get(key):
            assert filled[key] != defaults[key], key
    text = str([filled[key] for key in ("setup_commands", "head_setup_commands", "head_start_ray_commands")])
    assert "dev0" not in text
    assert "--constraint" in text
    (start,) = [command for command in filled["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--dashboard-host=0.0.0.0" not in start


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_ray_process_asks_for_the_token_and_no_secret_is_in_the_file(path: Path) -> None:
    config = read(path)
    for command in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
        assert command == "ray stop" or "RAY_AUTH_MODE=token ray start" in command, command
        assert command == "ray stop" or "--object-store-memory=" in command, command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    # Keys of clouds, private keys, tokens and passwords have these shapes.
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{40,}|password|secret_access", path.read_text(), re.I)


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_workers_are_spot_and_start_from_zero(path: Path) -> None:
    config = read(path)
    types = config["available_node_types"]
    assert set(types) >= {"head", "train-gpu", "archive-cpu"}
    assert "GPU" not in types["head"]["resources"]
    assert types["train-gpu"]["resources"]["GPU"] == 1
    for name, node in types.items():
        spot = "spot" in str(node["node_config"]).lower()
        assert spot == (name != "head"), name
        assert name == "head" or node["min_workers"] == 0, name
    assert sum(node.get("max_workers", 0) for node in types.values()) >= config["max_workers"]


def test_on_aws_roles_come_by_name_disks_are_encrypted_and_only_ssh_comes_in() -> None:
    config = read(FILES[0])
    for node in config["available_node_types"].values():
        assert set(node["node_config"]["IamInstanceProfile"]) == {"Name"}
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])
    rules = config["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]


def test_on_aws_the_image_is_named_once_and_not_rays_own() -> None:
    """`latest_dlami`, or none, is to Ray 2.60 an image of Ubuntu 18.04 with Python 3.6."""
    images = {node["node_config"]["ImageId"] for node in read(FILES[0])["available_node_types"].values()}
    assert images == {"ami-OF-YOUR-REGION"}, "the user's to fill in: EC2 refuses it as it is"
    assert FILES[0].read_text().count("ami-") == 1
    assert "/latest/ami-id" in (ROOT / "docs/cluster.md").read_text()


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_a_node_gets_a_python_that_the_program_runs_on(path: Path) -> None:
    commands = "\n".join(read(path)["setup_commands"])
    (version,) = re.findall(r"uv venv .*--managed-python --python (\d+\.\d+\.\d+) ", commands)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert SpecifierSet(needed).contains(version)
    assert re.search(r"astral\.sh/uv/\d+\.\d+\.\d+/install\.sh", commands), "uv is pinned too"
    assert "python3 -m venv" not in commands


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_all_that_is_installed_is_pinned(path: Path) -> None:
    config = read(path)
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    installed = [line for line in [*config["setup_commands"], *config["head_setup_commands"]] if "pip install" in line]
    assert len(installed) == 2
    for line in installed:
        _, _, names = line.partition("--constraint ~/colorize/constraints.txt ")
        assert names, line
        assert set(names.split()) <= pins | {"~/colorize/dist/*.whl"}, line


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_the_page_says_what_the_launcher_itself_needs(path: Path) -> None:
    (line,) = read(path)["head_setup_commands"]
    page = (ROOT / "docs/cluster.md").read_text()
    assert line.partition("constraints.txt ")[2] in page
    assert "python -m pip wheel --no-deps --wheel-dir dist ." in page
    assert "python -m build" not in path.read_text()


def test_a_mistyped_key_would_be_noticed() -> None:
    config = read(FILES[0]) | {"max_wokers": 3}
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(prepare_config(config))
