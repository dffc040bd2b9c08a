"""What is asked of the nodes before a job's work starts, on the one node of the tests."""

from pathlib import Path

import pytest

from colorize.cluster import ClusterInfo
from colorize.errors import ClusterError
from colorize.submit import visible
from colorize.submit.visible import check_visible

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_what_is_there_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    check_visible(read=[tmp_path, tmp_path / "a.png"], written=[tmp_path / "new" / "deep"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_what_is_missing_is_named_with_its_node(tmp_path: Path, ray_cluster: ClusterInfo) -> None:
    with pytest.raises(ClusterError) as error:
        check_visible(read=[tmp_path, tmp_path / "missing"])
    host = ray_cluster.address.rpartition(":")[0]
    assert str(error.value).startswith(f"{tmp_path / 'missing'}: node ")
    assert host in str(error.value)


def test_a_task_on_a_node_answers_as_the_driver_does(tmp_path: Path) -> None:
    """The way that is taken where there are more nodes than one."""
    import ray

    [node] = ray.nodes()  # type: ignore[no-untyped-call]
    paths = [tmp_path, tmp_path / "missing"]
    assert ray.get(visible._asked(node, paths)) == visible._missing(paths) == [tmp_path / "missing"]


def test_a_probe_lies_in_the_nearest_folder_and_goes(tmp_path: Path) -> None:
    with visible._probe(tmp_path / "new" / "deep") as probe:
        assert probe.parent == tmp_path
        assert probe.is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told() -> None:
    with pytest.raises(ClusterError, match="/proc/self cannot be written"), visible._probe(Path("/proc/self/new")):
        pass
