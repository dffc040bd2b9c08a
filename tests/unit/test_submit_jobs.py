"""The client of Ray's job server, against one of this process that speaks its protocol: what is submitted, told, followed, refused."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from colorize.errors import ClusterError, ConfigError
from colorize.submit.jobs import JobClient, _entrypoint
from colorize.submit.wheel import Wheel
from tests.jobservers import JobServer, serving

TOKEN = "a" * 64


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    with serving(JobServer()) as started:
        yield started


def test_a_command_is_submitted_with_the_program(server: JobServer) -> None:
    client = JobClient(server.url)
    first = client.start(["archive", "s3://a", "s3://b c"], environment={"AWS_REGION": "eu-west-1"})
    second = client.start(["archive", "s3://a", "s3://b c"], id="nightly-1", cpus=1)
    assert first.startswith("archive-")
    assert second == "nightly-1"
    assert server.uploads == 1  # the second time it is there
    [(name, data)] = server.packages.items()
    assert name == f"_ray_pkg_{hashlib.sha1(data).hexdigest()}.zip"
    environment = server.jobs[first]["runtime_env"]
    assert environment["working_dir"] == f"gcs://{name}"
    assert environment["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60", "AWS_REGION": "eu-west-1"}
    assert " -m colorize.cli.job archive s3://a 's3://b c';" in server.jobs[first]["entrypoint"]
    assert server.jobs[second]["order"]["entrypoint_num_cpus"] == 1
    assert "entrypoint_num_cpus" not in server.jobs[first]["order"]
    assert client.state(first).command == "colorize archive s3://a 's3://b c'"


@pytest.mark.parametrize("executable", ["/missing/python", "/bin/false"])
def test_a_node_runs_the_command_by_a_python_that_has_ray(executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bin = Path(sys.executable).parent
    monkeypatch.setattr(sys, "executable", executable)
    command = _entrypoint(["models", "--json"])
    done = subprocess.run(["/bin/sh", "-c", command], env=dict(os.environ, PATH=str(bin)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {model["name"] for model in json.loads(done.stdout)} >= {"photo"}


def test_a_node_whose_python_has_no_ray_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/missing/python")
    command = _entrypoint(["models"])
    done = subprocess.run(["/bin/sh", "-c", command], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "colorize: no python on the path of the node that runs the job has Ray\n"


@pytest.fixture
def small_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about what it holds."""
    monkeypatch.setattr("colorize.submit.jobs.build_wheel", lambda: Wheel(name="colorize-0-py3-none-any.whl", data=b"PK"))


@pytest.mark.usefixtures("small_wheel")
def test_a_server_that_is_not_ready_is_asked_again(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.submit.submission.NOT_READY_SECONDS", 0.01)
    server.refusals = ["No available agent to submit job, please try again later."] * 2
    assert JobClient(server.url).start(["train", "--run", "/r"]) in server.jobs


@pytest.mark.usefixtures("small_wheel")
def test_what_the_server_refuses_is_one_line(server: JobServer) -> None:
    server.refusals = ["Traceback\n  something\nValueError: no"]
    with pytest.raises(ClusterError) as error:
        JobClient(server.url).start(["train"])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{server.url}: ")


def test_a_command_with_a_secret_is_refused(server: JobServer) -> None:
    with pytest.raises(ConfigError, match=r"^s3://…@bucket/a: word 2 of the command holds a secret.*environment") as error:
        JobClient(server.url).start(["archive", "s3://KEY:WORD@bucket/a", "/b"])
    assert "WORD" not in str(error.value)
    assert not server.jobs


def test_a_long_command_is_shown_without_its_secret(server: JobServer) -> None:
    server.add("one", "RUNNING", entrypoint=f"{'x' * 480} s3://KEY:{'WORD' * 9}@bucket/a")
    assert "WORD" not in JobClient(server.url).state("one").command


def test_an_id_that_is_none_is_refused(server: JobServer) -> None:
    with pytest.raises(ConfigError, match=r"job id '\.\./x'"):
        JobClient(server.url).start(["train"], id="../x")


@pytest.mark.parametrize("call", [JobClient.state, JobClient.stop, lambda client, id: list(client.follow(id))])
def test_an_id_that_is_a_path_is_not_asked_for(server: JobServer, call: Any) -> None:
    with pytest.raises(ConfigError, match=r"^job id '\.\./\.\./api/version': letters"):
        call(JobClient(server.url), "../../api/version")


@pytest.mark.parametrize("cpus", [-1, float("nan"), float("inf")])
def test_cpus_that_nothing_has_are_refused(server: JobServer, cpus: float) -> None:
    with pytest.raises(ConfigError, match=r"^entrypoint_num_cpus (-1|nan|inf): must be 0 or more, and finite$"):
        JobClient(server.url).start(["train"], cpus=cpus)
    assert not server.uploads


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
            "training\ncolorize: first\ncolorize: /a: cannot be read\n\n",
            "/a: cannot be read",
        ),
        ("Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\nKilled\n", "Killed"),
        ("Unexpected error occurred: the actor died\nTraceback", "Unexpected error occurred: the actor died"),
        ("Traceback (most recent call last):\n  File x, line 1\nValueError: no room\n", "ValueError: no room"),
        ("Failed to start supervisor actor one: 'x'. Full traceback:\nTraceback (most …):\n  File x\nOSError: full\n", "OSError: full"),
        ("", ""),
    ],
)
def test_why_a_job_failed_is_one_line(server: JobServer, message: str, reason: str) -> None:
    server.add("one", "FAILED", message)
    assert JobClient(server.url).state("one").message == reason


def test_why_a_job_failed_has_no_secret_and_can_be_kept(server: JobServer) -> None:
    server.add("one", "FAILED", "colorize: s3://KEY:WORD@bucket/a\ud800: cannot be read\n")
    server.add("two", "RUNNING", "waits for s3://KEY:WORD@bucket/a")
    assert JobClient(server.url).state("one").message == "s3://…@bucket/a?: cannot be read"
    assert JobClient(server.url).state("two").message == "waits for s3://…@bucket/a"


def test_jobs_are_listed_newest_first_without_secrets(server: JobServer) -> None:
    server.add("old", "SUCCEEDED", start_time=1000)
    server.add("new", "RUNNING", start_time=2000, entrypoint="x s3://KEY:WORD@bucket/a s3://bucket/b")
    server.add("driver", "RUNNING", type="DRIVER", submission_id=None, job_id="01000000")
    new, old = JobClient(server.url).list()
    assert (new.id, new.status, new.started, new.ended, new.is_over) == ("new", "RUNNING", 2.0, None, False)
    assert new.command == "x s3://…@bucket/a s3://bucket/b"
    assert (old.id, old.started, old.ended, old.is_over) == ("old", 1.0, 3.0, True)


def test_a_log_is_followed_line_by_line(server: JobServer) -> None:
    server.add("one", "SUCCEEDED")
    rays = "2026-01-01 00:00:00,000\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job one: x\n"
    server.logs["one"] = [f"{rays}fi", "rst\nsecond\n\nthi", "rd"]
    assert list(JobClient(server.url).follow("one")) == ["first", "second", "", "third"]


def test_a_log_goes_on_where_the_connection_broke(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.submit.jobs.NOT_READY_SECONDS", 0.01)
    server.add("one", "RUNNING")
    server.logs["one"] = ["first\nsec", "", "ond\n", "", "third\n"]
    lines = []
    for line in JobClient(server.url).follow("one"):
        lines.append(line)
        if line == "third":
            server.add("one", "SUCCEEDED")
    assert lines == ["first", "second", "third"]


def test_a_server_that_is_gone_ends_the_log_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.submit.jobs.NOT_READY_SECONDS", 0.01)
    monkeypatch.setattr("colorize.submit.jobs.CALL_SECONDS", 0.5)
    with serving(JobServer()) as server:
        server.add("one", "RUNNING")
        server.logs["one"] = ["first\n"]
        log = JobClient(server.url).follow("one")
        assert next(log) == "first"
    with pytest.raises(ClusterError, match="the job server is gone; the job may go on"):
        list(log)


def test_a_job_is_stopped(server: JobServer) -> None:
    server.add("one", "RUNNING")
    JobClient(server.url).stop("one")
    assert server.stopped == ["one"]


@pytest.mark.parametrize("call", [JobClient.state, JobClient.stop, lambda client, id: list(client.follow(id))])
def test_an_unknown_job_is_an_error(server: JobServer, call: Any) -> None:
    with pytest.raises(ClusterError, match=r"^none: there is no such job on http://127"):
        call(JobClient(server.url), "none")


def test_the_token_is_shown(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = TOKEN
    server.add("one", "SUCCEEDED")
    server.logs["one"] = ["first\n"]
    monkeypatch.setattr("colorize.auth.header", lambda: {"authorization": f"Bearer {TOKEN}"})
    assert list(JobClient(server.url).follow("one")) == ["first"]
    monkeypatch.setattr("colorize.auth.header", lambda: {"authorization": "Bearer b"})
    with pytest.raises(ClusterError, match="this Ray "):
        JobClient(server.url)


@pytest.mark.parametrize("version", ["2.9.0", "3.0.0"])
def test_another_ray_is_refused(server: JobServer, version: str) -> None:
    server.ray = version
    with pytest.raises(ClusterError, match=f"Ray {version} runs there, and colorize needs "):
        JobClient(server.url)


def test_the_address_that_is_given_counts_and_not_the_environments(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert JobClient(f"{server.url}/").address == server.url
    assert JobClient(server.url.removeprefix("http://")).address == server.url
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server.url)
    assert JobClient().address == server.url


def test_nothing_there_is_an_error_in_one_line() -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"^http://127\.0\.0\.1:1: no Ray job server answers there: "):
        JobClient("http://127.0.0.1:1")
    assert time.monotonic() - began < 60


def test_the_password_of_an_address_is_shown_nowhere(server: JobServer) -> None:
    with pytest.raises(ClusterError, match=r"^http://…@127\.0\.0\.1:1: no Ray job server answers there: ") as raised:
        JobClient("http://me:sesame@127.0.0.1:1")
    assert "sesame" not in str(raised.value)
    jobs = JobClient(server.url.replace("://", "://me:sesame@"))
    assert jobs.address == server.url.replace("://", "://…@")
    with pytest.raises(ClusterError, match="there is no such job on http://…@"):
        jobs.state("none")


@pytest.mark.parametrize("address", ["http://me:se/same@head:8265", "http://me:sesame@:8265", "ray://me:sesame@head..local:10001"])
def test_the_password_of_an_address_that_is_none_is_shown_nowhere(address: str) -> None:
    """The scheduler writes down the reason for which Ray is away."""
    with pytest.raises(ClusterError) as raised:
        JobClient(address)
    assert "same" not in str(raised.value)


def test_what_is_no_job_server_is_an_error(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(_: Any, __: web.Request) -> web.Response:
        return web.Response(text=json.dumps("hello"), content_type="text/html")

    monkeypatch.setattr(JobServer, "version", page)
    with serving(JobServer()) as other, pytest.raises(ClusterError, match="no Ray job server answers there"):
        JobClient(other.url)


@pytest.mark.parametrize("status", [200, 404])
def test_the_address_of_another_program_is_said_to_be_one(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(_: Any, __: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>", content_type="text/html")

    monkeypatch.setattr(JobServer, "version", page)
    told = "no Ray job server answers there, but another program: give the address of Ray's, http://host:8265"
    with serving(JobServer()) as other:
        for address in (other.url, other.url.removeprefix("http://")):
            with pytest.raises(ClusterError) as error:
                JobClient(address)
            assert str(error.value) == f"{other.url}: {told}"


def test_answers_of_another_make_are_errors_in_one_line(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.ray = "abc"
    with pytest.raises(ClusterError, match=r"^http://127.*: no Ray job server answers there: Invalid version: 'abc'$"):
        JobClient(server.url)
    server.ray = "2.60.0"

    async def jobs(_: Any, __: web.Request) -> web.Response:
        return web.json_response([{"x": 1}])

    monkeypatch.setattr(JobServer, "list", jobs)
    with serving(JobServer()) as other, pytest.raises(ClusterError, match=r"^http://127.*: no Ray job server answers there: [^\n]*$"):
        JobClient(other.url).list()


@pytest.mark.parametrize("address", ["http://", "https:///x", "http://:8265", "http://head:99999", "http://head:x"])
def test_a_url_without_a_host_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=r"^http.*: not a job server's address: give http://host:8265$"):
        JobClient(address)


@pytest.mark.parametrize("address", ["ray://head:6379", "head:6379"])
def test_a_ray_that_does_not_say_where_its_job_server_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head's own port that is asked as a client's server, say: the scheduler asks again later."""

    def no(*_: Any, **__: Any) -> None:
        raise ConnectionError("ray client connection\ntimeout")

    monkeypatch.setattr("colorize.cluster.find", lambda named, _: named)
    monkeypatch.setattr("colorize.submit.address._speaks_http", lambda _: False)
    monkeypatch.setattr("colorize.submit.address.ray_client_address_to_api_server_url", no)
    monkeypatch.setattr("colorize.submit.address.GcsClient", no)
    told = rf"^{address}: does not say where its job server is: ray client connection timeout$"
    monkeypatch.setattr("colorize.submit.address.services.canonicalize_bootstrap_address_or_die", lambda found: found)
    with pytest.raises(ClusterError, match=told):
        JobClient(address)


@pytest.mark.parametrize("address", ["head..local:6379", "ray://head..local:10001", f"{'a' * 64}.local:6379", "\udcff:6379"])
def test_a_host_that_no_machine_can_have_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=r"^\S+: not a Ray address: no machine can have such a name$"):
        JobClient(address)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert JobClient(server.url).list() == []
    assert JobClient(server.url.removeprefix("http://")).list() == []


def test_a_package_that_cannot_be_made_is_no_fault_of_the_job_server(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = JobClient(server.url)
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(ConfigError, match=r"^the package of this program cannot be made on this machine: .*No such file"):
        jobs.start(["archive", "/a", "/b"])
    assert server.jobs == {}


def test_a_ray_of_the_commands_own_has_no_job_server() -> None:
    with pytest.raises(ClusterError, match=r"^local: has no job server: such a Ray ends with its command"):
        JobClient("local")


def test_a_connection_that_has_died_without_a_word_is_found_out(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.submit.jobs.SILENT_SECONDS", 0.05)
    server.add("one", "RUNNING")
    server.logs["one"] = ["first\n"]
    server.is_open = True  # says nothing any more, not even that it ends
    lines = []
    for line in JobClient(server.url).follow("one"):
        lines.append(line)
        server.add("one", "SUCCEEDED")
    assert lines == ["first"]
