"""`colorize doctor`: every check notices when something is wrong: with real files, sockets and processes, and given facts elsewhere."""

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colorize.cli.main import app
from colorize.doctor import gpus, listeners, models, reach
from colorize.doctor.finding import Finding
from colorize.doctor.listeners import check_exposure, check_ports, check_token_file, read_listeners
from colorize.doctor.machine import Disk, Machine, check_machine, read_machine
from colorize.doctor.packages import check_loading, check_packages
from colorize.model.card import SHIPPED
from tests.models import small_model

# Packages


def install(folder: Path, name: str, version: str, *lines: str) -> None:
    """A distribution without code."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_this_installation_is_in_order() -> None:
    python, packages = check_packages()
    assert (python.status, packages.status) == ("ok", "ok")
    assert "ray 2." in packages.found
    assert "torch 2." in packages.found
    assert check_loading().status == "ok"


def test_a_package_of_another_version_at_any_depth(site: Path) -> None:
    install(site, "ourthing", "1", "Requires-Dist: middlething[far]>=2", "Requires-Dist: numpy>=1", "Requires-Python: >=3.11")
    install(
        site,
        "middlething",
        "2.5",
        "Provides-Extra: far",
        'Requires-Dist: deepthing<3; extra == "far"',
        'Requires-Dist: gone; extra == "no"',
    )
    install(site, "deepthing", "3.0.1")
    python, packages = check_packages("ourthing")
    assert python.status == "ok"
    assert (packages.status, packages.found) == ("wrong", "deepthing is 3.0.1 (middlething needs <3)")
    assert "pip install" in packages.advice


def test_a_package_that_is_missing(site: Path) -> None:
    install(
        site, "ourthing", "1", "Requires-Dist: nowherething>=2", "Provides-Extra: more", 'Requires-Dist: optionalthing; extra == "more"'
    )
    assert check_packages("ourthing")[1].found == "nowherething is missing (ourthing needs nowherething>=2)"


def test_an_optional_package_counts_where_it_is_installed(site: Path) -> None:
    install(site, "ourthing", "1", "Provides-Extra: more", 'Requires-Dist: optionalthing>=9; extra == "more"')
    assert check_packages("ourthing")[1].status == "ok"
    install(site, "optionalthing", "8")
    assert check_packages("ourthing")[1].found == "optionalthing is 8 (ourthing needs >=9)"


def test_another_python_and_no_installation_at_all(site: Path) -> None:
    install(site, "ourthing", "1", "Requires-Python: >=4")
    assert check_packages("ourthing")[0].status == "wrong"
    assert "needs Python >=4" in check_packages("ourthing")[0].advice
    assert check_packages("nowherething")[0].status == "wrong"


def test_a_package_that_does_not_load(site: Path) -> None:
    (site / "brokenthing.py").write_text("raise OSError('libbroken.so.1: cannot open shared object file')\n")
    found = check_loading(("json", "brokenthing"))
    assert (found.status, found.found) == ("wrong", "brokenthing: libbroken.so.1: cannot open shared object file")


# The machine

GIB = 1 << 30
FINE = Machine(
    cpus=8, memory=32 * GIB, memory_free=24 * GIB, shm_free=16 * GIB, open_files=65536,
    disks=(Disk(purpose="downloads", path="/cache", total=100 * GIB, free=50 * GIB),),
)  # fmt: skip


def by_name(found: list[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in found}


def test_a_good_machine_has_nothing_to_be_advised() -> None:
    assert {(one.status, one.advice) for one in check_machine(FINE)} == {("ok", "")}


@pytest.mark.parametrize(
    ("change", "check", "status", "words"),
    [
        ({"cpu_limit": 0.5}, "CPUs", "warning", "less than one CPU"),
        ({"memory_free": 1.5e9}, "memory", "warning", "1.5 GB"),
        ({"memory_free": 8e8}, "memory", "wrong", "--workers 1"),
        ({"memory_free": 8e8, "memory_limit": 10**9}, "memory", "wrong", "raise the limit"),
        ({"shm_free": 64_000_000}, "/dev/shm", "wrong", "--shm-size=11g"),
        ({"shm_free": 6_000_000_000}, "/dev/shm", "warning", "--shm-size=11g"),
        ({"shm_free": 64_000_000, "memory_limit": 8 * 10**9}, "/dev/shm", "wrong", "--shm-size=3g"),
        ({"shm_free": None}, "/dev/shm", "wrong", "mount a tmpfs"),
        ({"disks": (Disk(purpose="downloads", path="/cache", total=10**12, free=5 * 10**8),)}, "downloads", "wrong", "make room"),
        ({"disks": (Disk(purpose="downloads", path="/cache", total=10**12, free=4 * 10**10),)}, "downloads", "warning", "95 %"),
        (
            {"disks": (Disk(purpose="downloads", path="/c", total=10**12, free=5 * 10**11, problem="Permission denied"),)},
            "downloads",
            "wrong",
            "let this user write there",
        ),
        ({"open_files": 512}, "open files", "wrong", "ulimit"),
        ({"open_files": 4096}, "open files", "warning", "ulimit"),
    ],
)
def test_a_machine_that_lacks_something(change: dict[str, object], check: str, status: str, words: str) -> None:
    found = by_name(check_machine(dataclasses.replace(FINE, **change)))  # type: ignore[arg-type]
    assert found[check].status == status
    assert words in found[check].advice
    assert [one.check for one in found.values() if one.status != "ok"] == [check]


def test_a_large_store_fits_into_what_there_is() -> None:
    """With 100 GB of memory and 20 GB of /dev/shm, Ray takes 19 GB and no disk."""
    assert by_name(check_machine(dataclasses.replace(FINE, memory=100 * 10**9, shm_free=20 * 10**9)))["/dev/shm"].status == "ok"


def test_the_machine_is_read_as_it_is() -> None:
    machine = read_machine()
    assert 0 < machine.memory_free < machine.memory
    assert {disk.purpose for disk in machine.disks} >= {"Ray's files"}
    assert all(0 < disk.free <= disk.total for disk in machine.disks)


@pytest.mark.parametrize(("amiss", "why"), [("file", "file is a file"), ("loop", "Too many levels of symbolic links"), ("", "")])
def test_a_folder_that_cannot_be_written_is_noticed(amiss: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("COLORIZE_CACHE", str(tmp_path / amiss / "deep/er"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / amiss))
    found = {disk.purpose: disk for disk in read_machine().disks}
    if amiss:
        assert str(found["downloads"].problem).endswith(why)
        assert found["downloads"].path == str(tmp_path / amiss / "deep/er")
        return
    assert found["Ray's files"].problem is None
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    found = {disk.purpose: disk for disk in read_machine().disks}
    assert (found["Ray's files"].path, found["Ray's files"].problem) == (str(tmp_path), "Permission denied")
    assert found["temporary files"].problem is None


def test_a_machine_on_which_no_temporary_file_can_be_made_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert ("temporary files", str(tmp_path)) in [(disk.purpose, disk.path) for disk in read_machine().disks]


def test_a_containers_limits_are_the_tightest_of_its_groups(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("proc/meminfo", "MemTotal:       32000000 kB\nMemFree: 1 kB\nMemAvailable:   30000000 kB\n")
    put("proc/self/cgroup", "0::/pods/one\n")
    put("sys/fs/cgroup/pods/memory.max", "8000000000\n")
    put("sys/fs/cgroup/pods/memory.current", "7000000000\n")
    put("sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 2000000000\n")
    put("sys/fs/cgroup/pods/one/memory.max", "max\n")
    put("sys/fs/cgroup/pods/one/cpu.max", "150000 100000\n")
    (tmp_path / "dev/shm").mkdir(parents=True)
    machine = read_machine(tmp_path)
    assert (machine.memory_limit, machine.memory_free, machine.cpu_limit) == (8_000_000_000, 3_000_000_000, 1.5)


def test_a_containers_limits_by_the_first_version_of_groups(tmp_path: Path) -> None:
    for path, text in {
        "proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable: 30000000 kB\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }.items():  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    machine = read_machine(tmp_path)
    assert (machine.memory_limit, machine.memory_free, machine.cpu_limit, machine.shm_free) == (4_000_000_000, 3_000_000_000, 2.0, None)


# Who listens

LISTEN = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(server.getsockname()[1], flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def listening(address: str, *title: str, **environment: str) -> Iterator[int]:
    """A process that listens on `address` and has `title` in its command line; its port."""
    command = [sys.executable, "-c", LISTEN, address, *title]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def only(port: int) -> list[listeners.Listener]:
    return [one for one in read_listeners() if one.port == port]


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_ray_port_that_is_open_to_others(address: str) -> None:
    if address == "::" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listening(address, "/site/ray/core/src/ray/gcs/gcs_server") as port:
        found = check_exposure(only(port))
    assert found.status == "wrong"
    assert f"{address}:{port}" in found.found
    assert "runs code here" in found.advice
    with listening(address, "/ray/raylet/raylet", RAY_AUTH_MODE="token") as port:
        found = check_exposure(only(port))
    assert found.status == "warning"
    assert f"{address}:{port}" in found.found
    assert "firewall" in found.advice


def test_a_ray_on_the_loopback_interface_is_as_it_should_be() -> None:
    with listening("127.0.0.1", "/site/ray/core/src/ray/gcs/gcs_server") as port:
        found = only(port)
    assert check_exposure(found) == Finding(check="Ray from outside", status="ok", found="1 port of Ray, all on the loopback interface")


def test_other_programs_are_no_concern() -> None:
    with listening("0.0.0.0", "/usr/bin/x-ray-viewer") as port:
        found = only(port)
    assert len(found) == 1
    assert check_exposure(found).found == "no Ray runs here"


def test_a_hidden_process_on_a_ray_port_is_taken_for_ray() -> None:
    """Of another user's process only the port is known."""
    hidden = listeners.Listener(address="10.1.2.3", port=6379)
    assert check_exposure([hidden]).status == "wrong"
    assert "10.1.2.3:6379" in check_exposure([hidden]).found
    assert check_exposure([dataclasses.replace(hidden, port=8000)]).status == "ok"


def test_a_port_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setitem(listeners.USUAL_PORTS, port, "the test")
        found = check_ports(read_listeners())
        assert found.status == "warning"
        assert f"{port} (the test) is held by" in found.found
        assert "(pid " in found.found
    assert f"{port} (the test)" not in check_ports(read_listeners()).found


def test_addresses_are_read_in_the_machines_order(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    (tmp_path / "net/tcp").write_text(
        head + "   0: 0100007F:1F40 00000000:0000 0A 0:0 00:0 0 0 0 11 1\n   1: 0100007F:1F41 0100007F:0001 01 0:0 00:0 0 0 0 12 1\n"
    )
    (tmp_path / "net/tcp6").write_text(head + "   0: 00000000000000000000000001000000:2049 0:0 0A 0:0 00:0 0 0 0 13 1\n")
    assert [(one.address, one.port, one.is_loopback) for one in read_listeners(tmp_path)] == [
        ("127.0.0.1", 8000, True), ("::1", 8265, True),
    ]  # fmt: skip


def test_a_token_that_others_can_read(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    assert check_token_file(token).status == "ok"
    token.write_text("secret")
    token.chmod(0o644)
    folders = [folder for folder in token.parents if not folder.stat().st_mode & 0o011]
    before = {folder: folder.stat().st_mode for folder in folders}
    try:
        for folder in folders:
            folder.chmod(0o755)
        assert check_token_file(token).status == "wrong"
        assert check_token_file(token).advice == f"chmod 600 {token}"
        tmp_path.chmod(0o700)
        assert check_token_file(token).status == "ok", "nobody else gets into its folder"
    finally:
        for folder, mode in before.items():
            folder.chmod(mode)
    tmp_path.chmod(0o755)
    token.chmod(0o600)
    assert check_token_file(token).status == "ok"


def test_the_token_is_looked_for_where_ray_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    found = check_token_file()
    assert (found.status, found.found) == ("wrong", f"{token} (RAY_AUTH_TOKEN_PATH): no token can be read there: No such file or directory")
    assert found.advice == "name its file in RAY_AUTH_TOKEN_PATH, or leave it out"
    token.write_text("secret")
    token.chmod(0o600)
    assert (check_token_file().status, check_token_file().found) == ("ok", f"{token}, out of others' reach")
    token.write_text("")
    assert check_token_file().found.endswith("no token can be read there: it is empty")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert check_token_file() == Finding(check="Ray's token", status="ok", found="in RAY_AUTH_TOKEN, which counts before any file")


def test_a_token_that_may_not_be_read_is_not_none_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "auth_token"
    token.write_text("secret")

    def read(_: Path) -> bytes:  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", read)
    found = check_token_file(token)
    assert (found.status, found.found) == ("wrong", f"{token}: no token can be read there: Permission denied")


# GPUs and models


def test_a_driver_without_a_gpu_for_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpus.check_gpus(tmp_path / "none").status == "ok"
    (tmp_path / "version").write_text("NVRM version: 999")
    found = gpus.check_gpus(tmp_path / "version")
    assert (found.status, "built for" in found.found) == ("warning", True)


def test_the_models_that_ship_are_whole() -> None:
    assert {one.check: one.status for one in models.check_models()} == {"model cifar10": "ok", "model photo": "ok"}


def test_a_damaged_model(tmp_path: Path) -> None:
    damaged = tmp_path / "photo.safetensors"
    content = bytearray((SHIPPED / "photo.safetensors").read_bytes())
    content[len(content) // 2] ^= 0x10
    damaged.write_bytes(content)
    found = models.check_model(str(damaged))
    assert found.status == "wrong"
    assert "do not match the checksum" in found.found
    assert models.check_model(str(tmp_path / "gone.safetensors")).status == "wrong"


def test_a_model_whose_colours_are_no_numbers(tmp_path: Path) -> None:
    model = small_model()
    for parameter in model.network.parameters():
        parameter.data.fill_(6e4)  # a number, but not what comes of it
    model.save(tmp_path / "lost.safetensors")
    found = models.check_model(str(tmp_path / "lost.safetensors"))
    assert (found.status, found.found) == ("wrong", "its colours are not finite numbers")


# The cluster


def test_nobody_is_asked_where_no_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert reach.check_cluster(None).status == "ok"


def test_a_cluster_that_takes_too_long_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = reach.check_cluster(f"127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)
    assert (found.status, "no answer within 0.5 s" in found.found) == ("wrong", True)


@pytest.mark.parametrize("address", ["http://me:sesame@127.0.0.1:8265", "ray://me:sesame@127.0.0.1:10001"])
def test_the_password_of_an_address_is_not_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What doctor says goes to monitoring programs, and the command of a process to everyone on the machine."""
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    found = reach.check_cluster(None)
    assert found.status == "wrong"
    assert found.found.startswith(f"{address.partition('://')[0]}://…@127.0.0.1:")


def test_a_ray_clients_address_is_refused_without_joining() -> None:
    found = reach.check_cluster("ray://127.0.0.1:1", seconds=0)
    assert (found.status, found.found) == ("wrong", "ray://127.0.0.1:1: a Ray client's address does not say what runs there")


def test_whatever_joining_raises_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise AttributeError("Traceback:\n  no such thing\nthe cluster said no\n")

    monkeypatch.setattr("colorize.cluster.connect", fail)
    assert reach.ask("h:1") == {"error": "h:1: joining it failed: AttributeError: the cluster said no"}


THERE = {"ray": "2.60.0", "python": sys.version.split()[0], "own_ray": "2.60.0", "alive": 2, "dead": 0, "cpus": 8, "gpus": 1, "token": True}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, "ok", "2 nodes alive"),
        ({"ray": "2.59.0"}, "wrong", "ray 2.59.0 there, 2.60.0 here"),
        ({"python": "3.10.1"}, "wrong", "python 3.10.1 there"),
        ({"dead": 1}, "warning", "1 dead"),
        ({"token": False}, "warning", "no token asked for"),
        ({"error": "10.0.0.1:6379: no Ray cluster answers there: Version mismatch: The cluster"}, "wrong", "Version mismatch"),
    ],
)
def test_what_a_cluster_says_is_judged(change: dict[str, object], status: str, words: str) -> None:
    found = reach.judge("10.0.0.1:6379", THERE | change)
    assert found.status == status
    assert words in found.found
    assert bool(found.advice) == (status != "ok")


def test_a_refused_token_is_told_from_a_dead_address() -> None:
    assert "auth_token" in reach.judge("h:1", {"error": "h:1: no Ray cluster answers there: AuthenticationError: invalid token"}).advice
    assert "auth_token" not in reach.judge("h:1", {"error": "h:1: no Ray cluster answers there (Connection refused)"}).advice


# The command


def test_the_exit_code_and_the_json_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = CliRunner().invoke(app, ["doctor", "--json", "--model", str(tmp_path / "gone.safetensors")])
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert all(set(one) == {"check", "status", "found", "advice"} for one in found)
    assert [one["status"] for one in found if one["check"] == f"model {tmp_path / 'gone.safetensors'}"] == ["wrong"]
    assert all(one["advice"] for one in found if one["status"] != "ok")


def test_the_screen_has_a_line_a_check_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "120"})
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("ok ") and "packages" in line for line in lines)
    at = next(index for index, line in enumerate(lines) if "cluster" in line and line.startswith("wrong"))
    assert "127.0.0.1:1" in lines[at]
    assert "→" in "\n".join(lines[at:])
