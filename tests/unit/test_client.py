"""The client of the service, against a real HTTP server: answers, retries, limits, secrets; the blocking and the asynchronous one alike."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colorize import AsyncClient, Client, ColorizeError, ConfigError, PictureError, RemoteError
from colorize.client import KEY_VARIABLE, answers, calls
from colorize.client.answers import Colored, Reply
from colorize.client.retry import Attempts, RetryPolicy, retry_after_seconds
from tests.services import Answer, Asked, answering

PICTURE = b"\xff\xd8 a scan"
HEADERS = {
    "Content-Type": "image/jpeg", "X-Colorize-Model": "my%20model", "X-Colorize-Model-SHA256": "ab" * 32,
    "X-Colorize-Mean-Confidence": "0.75", "Server-Timing": "decode;dur=1.5, predict;dur=20, encode;dur=3",
}  # fmt: skip
KEY = "kEy-of-nobody-0123456789"

STATUS = {"id": "run-1", "source": "/a", "target": "/b", "status": "running", "counts": {"coloured": 3, "failed": 1}, "seconds": 2.5}


def painted(asked: Asked) -> Answer:
    return Answer(body=b"in colour: " + asked.body, headers=HEADERS)


def error(status: int, reason: str, **headers: str) -> Answer:
    return Answer(status, json.dumps({"error": reason}).encode(), {"Content-Type": "application/json"} | headers)


def as_json(told: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})


def failing_first(*failures: Answer) -> Callable[[Asked], Answer]:
    """The failures, one after another, then pictures."""
    left = list(failures)
    return lambda asked: left.pop(0) if left else painted(asked)


class Twin:
    """Both clients behind one interface: every test that takes one runs with each."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def call(self, stub_url: str, name: str, *arguments: Any, options: dict[str, Any] | None = None, **settings: Any) -> Any:
        if self.kind == "blocking":
            with Client(stub_url, **(options or {})) as client:
                return getattr(client, name)(*arguments, **settings)

        async def one() -> Any:
            async with AsyncClient(stub_url, **(options or {})) as client:
                return await getattr(client, name)(*arguments, **settings)

        return asyncio.run(one())

    def many(self, stub_url: str, pictures: Any, **settings: Any) -> list[Any]:
        if self.kind == "blocking":
            with Client(stub_url) as client:
                return list(client.colorize_many(pictures, **settings))

        async def all_of_them() -> list[Any]:
            async with AsyncClient(stub_url) as client:
                return [one async for one in client.colorize_many(pictures, **settings)]

        return asyncio.run(all_of_them())

    def run(self, stub_url: str, name: str, *arguments: Any, **settings: Any) -> Any:
        """A method of the handle of run-1."""
        if self.kind == "blocking":
            with Client(stub_url) as client:
                return getattr(client.archive("run-1"), name)(*arguments, **settings)

        async def one() -> Any:
            async with AsyncClient(stub_url) as client:
                return await getattr(client.archive("run-1"), name)(*arguments, **settings)

        return asyncio.run(one())


@pytest.fixture(params=["blocking", "asynchronous"])
def twin(request: pytest.FixtureRequest) -> Twin:
    return Twin(request.param)


@pytest.fixture(autouse=True)
def _in_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses a hundredth as long, and no key from outside."""
    monkeypatch.setattr("colorize.client.retry.FIRST_SECONDS", 0.005)
    monkeypatch.setattr(calls, "POLL_SECONDS", (0.005, 0.05))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


# One picture


def test_a_picture_comes_back_with_what_the_service_says_of_it(twin: Twin) -> None:
    with answering(painted) as stub:
        colored = twin.call(stub.url, "colorize", PICTURE, vividness=0.5, format="png", confidence=True, candidates=3)
    assert colored == Colored(
        data=b"in colour: " + PICTURE, content_type="image/jpeg", model="my model", model_sha256="ab" * 32, mean_confidence=0.75,
        timings={"decode": 1.5, "predict": 20.0, "encode": 3.0},
    )  # fmt: skip
    (asked,) = stub.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/v1/colorize", PICTURE)
    assert asked.query == {"vividness": "0.5", "format": "png", "confidence": "true", "candidates": "3"}
    assert "in colour" not in repr(colored), "pictures do not get into logs"


def test_a_file_is_read_and_its_name_stays_here(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "secret name.jpg").write_bytes(PICTURE)
    with answering(painted) as stub:
        colored = twin.call(stub.url, "colorize", tmp_path / "secret name.jpg", hints=[{"x": 1, "y": 2, "color": "#ff0000"}])
    colored.save(tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes().startswith(b"in colour: ")
    (asked,) = stub.asked
    assert asked.headers["content-type"].startswith("multipart/form-data")
    assert PICTURE in asked.body
    assert b'name="hints"' in asked.body
    assert b'[{"x": 1, "y": 2, "color": "#ff0000"}]' in asked.body
    assert b"secret" not in asked.body


def test_a_file_that_cannot_be_read_is_one_line(twin: Twin, tmp_path: Path) -> None:
    with answering(painted) as stub, pytest.raises(PictureError, match=r"missing\.jpg: there is no such file"):
        twin.call(stub.url, "colorize", tmp_path / "missing.jpg")
    assert stub.asked == []


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(twin: Twin, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with answering(painted) as stub, pytest.raises(PictureError, match=r"pipe\.jpg: is not a regular file"):
        twin.call(stub.url, "colorize", tmp_path / "pipe.jpg")
    assert stub.asked == []


def test_a_service_below_a_path_is_asked_there(twin: Twin) -> None:
    with answering(painted) as stub:
        twin.call(f"{stub.url}/pictures/", "colorize", PICTURE)
    assert stub.asked[0].path == "/pictures/v1/colorize"


def test_a_setting_that_there_is_none_of_is_named(twin: Twin) -> None:
    with pytest.raises(ConfigError, match="vividnes: there is no such setting"):
        twin.call("http://127.0.0.1:1", "colorize", PICTURE, vividnes=1)


UNSENDABLE: list[tuple[dict[str, Any], str]] = [
    ({"model": "\ud800"}, r"model '\?': cannot be sent"),
    ({"hints": 5}, "hints '5': cannot be sent"),
    ({"hints": [5]}, r"hints '\[5\]': cannot be sent"),
    ({"hints": [{"x": b"1"}]}, "hints .*: cannot be sent"),
    ({"hints": [{"x": float("nan")}]}, "hints .*: cannot be sent"),
    ({"hints": [{"color": "\udcff"}]}, "hints .*: cannot be sent"),
]


@pytest.mark.parametrize(("settings", "reason"), UNSENDABLE)
def test_a_value_that_cannot_be_sent_is_named_before_anything_is(twin: Twin, settings: dict[str, Any], reason: str) -> None:
    def none() -> Iterator[bytes]:
        raise AssertionError("no picture is taken")
        yield

    with answering(painted) as stub:
        with pytest.raises(ConfigError, match=reason) as raised:
            twin.call(stub.url, "colorize", PICTURE, **settings)
        assert str(raised.value).isprintable()
        with pytest.raises(ConfigError, match=reason):
            twin.many(stub.url, none(), **settings)
    assert stub.asked == []


@pytest.mark.parametrize(
    ("arguments", "settings", "name"),
    [
        (("/a", "/b"), {"vividness": float("nan")}, "vividness"), (("\udcff", "/b"), {}, "source"), (("/a", "\udcff"), {}, "target"),
        (("/a", "/b"), {"model": b"photo"}, "model"),
    ],
)  # fmt: skip
def test_an_order_that_cannot_be_sent_names_its_part(twin: Twin, arguments: Any, settings: dict[str, Any], name: str) -> None:
    with answering(painted) as stub, pytest.raises(ConfigError, match=f"^{name} .*: cannot be sent"):
        twin.call(stub.url, "submit_archive", *arguments, **settings)
    assert stub.asked == []


def test_none_leaves_a_setting_to_the_service(twin: Twin) -> None:
    with answering(lambda asked: painted(asked) if asked.path == "/v1/colorize" else as_json({"id": "run-7"}, 202)) as stub:
        twin.call(stub.url, "colorize", PICTURE, vividness=None, hints=None)
        twin.call(stub.url, "submit_archive", "/a", "/b", vividness=None, model=None)
    assert (stub.asked[0].query, json.loads(stub.asked[1].body)) == ({}, {"source": "/a", "target": "/b"})


# What is tried again, and what is not


BARE = Answer(500, b"Internal Server Error", {"Content-Type": "text/plain"})
"""As Serve's proxy answers when the replica dies that has the request."""


@pytest.mark.parametrize(
    "failure", [error(503, "full"), error(429, "slow"), Answer(0), BARE, Answer(502, b"<html>"), Answer(504)],
    ids=["503", "429", "closed", "replica lost", "502 of a gateway", "504 of a gateway"],
)  # fmt: skip
def test_overload_and_lost_connections_are_tried_again(twin: Twin, failure: Answer) -> None:
    with answering(failing_first(failure, failure, failure)) as stub:
        assert twin.call(stub.url, "colorize", PICTURE).data.endswith(PICTURE)
    assert [asked.body for asked in stub.asked] == [PICTURE] * 4


def test_a_run_whose_replica_is_lost_is_not_submitted_twice(twin: Twin) -> None:
    with answering(lambda _: BARE) as stub, pytest.raises(RemoteError, match="the service answers with status 500") as raised:
        twin.call(stub.url, "submit_archive", "/a", "/b")
    assert len(stub.asked) == 1
    assert raised.value.status == 500


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 502])
def test_nothing_else_is_tried_again(twin: Twin, status: int) -> None:
    with answering(lambda _: error(status, "the picture: is not one", Location="/elsewhere")) as stub, pytest.raises(RemoteError) as raised:
        twin.call(stub.url, "colorize", PICTURE)
    assert len(stub.asked) == 1
    assert str(raised.value) == f"{stub.url}: the picture: is not one"
    assert raised.value.status == status
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.status) == (str(raised.value), status)


def test_a_refusal_of_a_file_names_it(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    with answering(lambda _: error(422, "the picture: is text,\n not a picture")) as stub, pytest.raises(RemoteError) as raised:
        twin.call(stub.url, "colorize", tmp_path / "a.jpg")
    assert str(raised.value) == f"{tmp_path / 'a.jpg'}: is text, not a picture"


def test_attempts_are_bounded_and_told(twin: Twin) -> None:
    with (
        answering(lambda _: error(503, "the service is full")) as stub,
        pytest.raises(RemoteError, match=r"is full \(tried 3 times in \d+ s"),
    ):
        twin.call(stub.url, "colorize", PICTURE, options={"attempts": 3})
    assert len(stub.asked) == 3


def test_a_wait_beyond_the_patience_is_not_begun(twin: Twin) -> None:
    with (
        answering(lambda _: error(429, "come back in an hour", **{"Retry-After": "3600"})) as stub,
        pytest.raises(RemoteError, match="an hour"),
    ):
        twin.call(stub.url, "colorize", PICTURE)
    assert len(stub.asked) == 1


def test_retry_after_is_the_least_that_is_waited(twin: Twin) -> None:
    times: list[float] = []

    def answer(asked: Asked) -> Answer:
        times.append(time.monotonic())
        return error(503, "full", **{"Retry-After": "1"}) if len(times) == 1 else painted(asked)

    with answering(answer) as stub:
        twin.call(stub.url, "colorize", PICTURE)
    assert times[1] - times[0] >= 1.0


def test_no_server_is_one_line(twin: Twin) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(RemoteError, match=rf"^{url}: no answer \(.+\) \(tried 2 times in \d+ s\)$") as raised:
            twin.call(url, "models", options={"attempts": 2})
    assert raised.value.status is None


def test_a_run_is_not_submitted_twice(twin: Twin) -> None:
    with answering(lambda _: Answer(0)) as stub, pytest.raises(RemoteError, match="no answer"):
        twin.call(stub.url, "submit_archive", "/a", "/b")
    assert len(stub.asked) == 1, "it may have begun"


def test_a_run_that_was_refused_for_now_is_submitted_again(twin: Twin) -> None:
    left = [error(429, "one run at a time"), as_json({"id": "run-7", "status": "pending"}, 202)]
    with answering(lambda _: left.pop(0)) as stub:
        assert twin.call(stub.url, "submit_archive", "/a", "/b", vividness=0.5, recolor=True).id == "run-7"
    assert json.loads(stub.asked[1].body) == {"source": "/a", "target": "/b", "vividness": 0.5, "recolor": True}


def test_an_answer_that_drips_is_cut_off(twin: Twin) -> None:
    release = threading.Event()

    def answer(_: Asked) -> Answer:
        release.wait(20)
        return Answer(0)

    with answering(answer) as stub:
        with pytest.raises(RemoteError, match="no answer"):
            twin.call(stub.url, "colorize", PICTURE, options={"attempts": 1, "timeout": 0.1})
        release.set()


def test_a_picture_that_takes_too_long_is_not_sent_again_and_a_question_is(twin: Twin) -> None:
    release = threading.Event()

    def answer(_: Asked) -> Answer:
        release.wait(20)
        return Answer(0)

    with answering(answer) as stub:
        for name, *arguments in (("colorize", PICTURE), ("models",)):
            with pytest.raises(RemoteError, match="no answer"):
                twin.call(stub.url, name, *arguments, options={"attempts": 2, "timeout": 0.1})
        release.set()
    assert [asked.method for asked in stub.asked] == ["POST", "GET", "GET"], "the service goes on with the picture"


def test_a_body_is_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch, twin: Twin) -> None:
    monkeypatch.setattr(calls, "MAX_ANSWER_BYTES", 1000)
    with answering(lambda _: Answer(body=bytes(1001), headers=HEADERS)) as stub, pytest.raises(RemoteError, match="more than 1,000 bytes"):
        twin.call(stub.url, "colorize", PICTURE)
    slow = calls.Collector(0.0)
    time.sleep(0.001)
    with pytest.raises(httpx2.ReadTimeout):
        slow.add(b"x")


@given(st.integers(1, 12), st.floats(0, 100), st.floats(0, 200))
def test_pauses_grow_and_end(attempts: int, patience: float, retry_after: float) -> None:
    made = Attempts(policy=RetryPolicy(attempts=attempts, patience=patience))
    pauses = []
    while (pause := made.pause(retry_after)) is not None:
        pauses.append(pause)
    assert len(pauses) <= attempts - 1
    assert made.made == len(pauses) + 1
    assert all(retry_after <= pause <= patience for pause in pauses)


@given(st.text(max_size=40))
def test_any_retry_after_is_a_number_of_seconds(header: str) -> None:
    assert 0 <= retry_after_seconds(header) < float("inf")


def test_retry_after_may_be_a_date() -> None:
    assert retry_after_seconds("Fri, 31 Dec 2199 23:59:59 GMT") > 1e9
    assert retry_after_seconds("Sun, 06 Nov 1994 08:49:37 GMT") == 0
    assert retry_after_seconds(" 7 ") == 7


# Many pictures


def test_many_come_back_in_order_and_failures_are_values(twin: Twin, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answer:
        number = int(asked.body)
        time.sleep((7 - number % 7) * 0.002)  # the later ones are done sooner
        return error(422, "the picture: is odd") if number == 5 else painted(asked)

    with answering(answer) as stub:
        pictures = [str(number).encode() for number in range(20)]
        results = twin.many(stub.url, [*pictures, tmp_path / "none"], concurrency=4)
    assert [one.data if isinstance(one, Colored) else type(one) for one in results] == [
        RemoteError if number == 5 else b"in colour: %d" % number for number in range(20)
    ] + [PictureError]
    assert str(results[5]).endswith("the picture: is odd")
    assert str(results[20]).startswith(f"{tmp_path / 'none'}: there is no such file")


def test_a_generator_without_end_is_taken_as_it_is_needed(twin: Twin) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"%d" % taken

    most = 0
    with answering(painted) as stub:
        if twin.kind == "blocking":
            with Client(stub.url) as client:
                for number, one in enumerate(results := client.colorize_many(endless(), concurrency=3), start=1):
                    assert isinstance(one, Colored)
                    most = max(most, taken - number)
                    if number == 10:
                        break
                results.close()
        else:

            async def some() -> None:
                nonlocal most
                number = 0
                async with AsyncClient(stub.url) as client:
                    results = client.colorize_many(endless(), concurrency=3)
                    async for one in results:
                        assert isinstance(one, Colored)
                        number += 1
                        most = max(most, taken - number)
                        if number == 10:
                            break
                    await results.aclose()

            asyncio.run(some())
    assert most < 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("colorize")]


def test_the_asynchronous_one_takes_asynchronous_generators() -> None:
    async def pictures() -> Any:
        for number in range(5):
            await asyncio.sleep(0)
            yield b"%d" % number

    with answering(painted) as stub:
        assert [one.data for one in Twin("asynchronous").many(stub.url, pictures())] == [b"in colour: %d" % number for number in range(5)]


def test_no_pictures_are_no_results(twin: Twin) -> None:
    assert twin.many("http://127.0.0.1:1", []) == []


def test_what_the_caller_s_generator_raises_comes_out(twin: Twin) -> None:
    def broken() -> Iterator[bytes]:
        yield b"1"
        raise KeyError("mine")

    with answering(painted) as stub, pytest.raises(KeyError, match="mine"):
        twin.many(stub.url, broken())


def test_who_breaks_off_does_not_wait_for_pauses(twin: Twin) -> None:
    def answer(asked: Asked) -> Answer:
        return painted(asked) if asked.body == b"1" else error(503, "full", **{"Retry-After": "60"})

    began = time.monotonic()
    with answering(answer) as stub:
        if twin.kind == "blocking":
            with Client(stub.url) as client:
                results = client.colorize_many([b"1", b"2"])
                next(results)
                results.close()
        else:

            async def first() -> None:
                async with AsyncClient(stub.url) as client:
                    results = client.colorize_many([b"1", b"2"])
                    await anext(results)
                    await results.aclose()

            asyncio.run(first())
    assert time.monotonic() - began < 50, "a minute, if it waited"


@pytest.mark.parametrize("concurrency", [0, 257])
def test_concurrency_has_its_bounds(twin: Twin, concurrency: int) -> None:
    with pytest.raises(ConfigError, match=f"concurrency {concurrency}"):
        twin.many("http://127.0.0.1:1", [b"1"], concurrency=concurrency)


# Runs and models


def test_a_run_is_followed_to_its_end(twin: Twin) -> None:
    over = STATUS | {"status": "failed", "failures": [{"path": "a.jpg", "reason": "is text,\nnot a picture"}], "reason": "the disk is full"}
    left = [as_json(STATUS), Answer(0), error(503, "starting"), as_json(STATUS), as_json(over)]
    seen: list[str] = []
    with answering(lambda _: left.pop(0)) as stub:
        last = twin.run(stub.url, "wait", on_status=lambda status: seen.append(status.status))
    assert seen == ["running", "running", "failed"]
    assert (last.is_over, last.reason) == (True, "the disk is full")
    assert last.failures == (("a.jpg", "is text, not a picture"),)
    assert last.counts == {"coloured": 3, "skipped": 0, "failed": 1, "listed": 0}
    assert {asked.path for asked in stub.asked} == {"/v1/archives/run-1"}


def test_waiting_ends_when_it_was_to_end(twin: Twin) -> None:
    with (
        answering(lambda _: as_json(STATUS)) as stub,
        pytest.raises(RemoteError, match=r"run run-1: is not over after 0\.05 s"),
    ):
        twin.run(stub.url, "wait", timeout=0.05)


@pytest.mark.parametrize(
    ("answered", "told"),
    [(0, "no answer"), (1, r"run run-1: is not over after 1 s; it goes on"), (3, r"run run-1: is not over after 1 s; it goes on")],
)
def test_no_question_outlasts_the_wait(monkeypatch: pytest.MonkeyPatch, twin: Twin, answered: int, told: str) -> None:
    monkeypatch.setattr(calls, "ANSWER_SECONDS", 0.2)
    release, left = threading.Event(), [as_json(STATUS)] * answered

    def answer(_: Asked) -> Answer:
        if left:
            return left.pop()
        release.wait(20)
        return Answer(0)

    began = time.monotonic()
    with answering(answer) as stub:
        with pytest.raises(RemoteError, match=told):
            twin.run(stub.url, "wait", timeout=1)
        seconds = time.monotonic() - began
        release.set()
    assert 1 <= seconds < 10, "20 s, if it waited for the answer"


def test_the_last_question_of_a_wait_is_asked_while_it_can_be_answered(monkeypatch: pytest.MonkeyPatch, twin: Twin) -> None:
    monkeypatch.setattr(calls, "POLL_SECONDS", (60.0, 60.0))
    monkeypatch.setattr(calls, "ANSWER_SECONDS", 2.8)
    left = [as_json(STATUS), as_json(STATUS | {"status": "succeeded"})]
    began = time.monotonic()
    with answering(lambda _: left.pop(0)) as stub:
        assert twin.run(stub.url, "wait", timeout=3).is_over
    assert time.monotonic() - began < 3


def test_a_wait_that_is_to_end_tries_no_longer_than_that(twin: Twin) -> None:
    with (
        answering(lambda _: error(503, "the service is full", **{"Retry-After": "1"})) as stub,
        pytest.raises(RemoteError, match="is full"),
    ):
        twin.run(stub.url, "wait", timeout=0.5)
    assert len(stub.asked) == 1


def test_why_a_call_is_tried_again_is_told_once(twin: Twin) -> None:
    left = [error(429, "one run at a time"), error(503, "full"), as_json({"id": "run-7", "status": "pending"}, 202), error(503, "starting")]
    left.append(as_json(STATUS | {"status": "succeeded"}))
    told: list[str] = []
    with answering(lambda _: left.pop(0)) as stub:
        twin.call(stub.url, "submit_archive", "/a", "/b", on_pause=told.append)
        twin.run(stub.url, "wait", on_pause=told.append)
        assert told == [f"{stub.url}: one run at a time", f"{stub.url}: starting"]


def test_a_run_is_cancelled(twin: Twin) -> None:
    left = [as_json({"id": "run-1", "status": status}, 202) for status in ("running", "stopped", "gone", [])]
    with answering(lambda _: left.pop(0)) as stub:
        assert [twin.run(stub.url, "cancel") for _ in range(2)] == ["running", "stopped"]
        for _ in range(2):
            with pytest.raises(RemoteError, match="tells of a run in another way"):
                twin.run(stub.url, "cancel")
    assert [(asked.method, asked.path) for asked in stub.asked] == [("DELETE", "/v1/archives/run-1")] * 4


def test_runs_are_listed(twin: Twin) -> None:
    with answering(lambda _: as_json({"archives": [STATUS]})) as stub:
        (status,) = twin.call(stub.url, "archives")
    assert (status.id, status.status, status.seconds, status.is_over) == ("run-1", "running", 2.5, False)


def test_an_id_stays_one_part_of_the_path() -> None:
    with answering(lambda _: error(404, "no such run")) as stub, Client(stub.url) as client:
        for name in ("../../healthz", "a/b", "a?b=c", "a#b", "%2e%2e"):
            with pytest.raises(RemoteError, match="no such run"):
                client.archive(name).status()
        for name in ("", ".", ".."):
            with pytest.raises(ConfigError, match="is not the id of a run"):
                client.archive(name).status()
        with pytest.raises(ConfigError, match=r"^run '\?': cannot be sent"):
            client.archive("\udcff").status()
    assert all(asked.path.startswith("/v1/archives/") and asked.path.count("/") == 3 and not asked.query for asked in stub.asked)


def test_models_are_told(twin: Twin) -> None:
    with answering(lambda _: as_json({"default": "photo", "models": [MODEL, MODEL | {"name": "cifar10", "loaded": False}]})) as stub:
        photo, cifar10 = twin.call(stub.url, "models")
    assert (photo.name, photo.is_default, photo.loaded) == ("photo", True, True)
    assert (cifar10.name, cifar10.is_default, cifar10.loaded) == ("cifar10", False, False)


# What another program might answer


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"<html>"),
        Answer(body=b"x", headers=HEADERS | {"Content-Type": "text/html"}),
        Answer(body=b"", headers=HEADERS),
        Answer(body=b"x", headers=HEADERS | {"X-Colorize-Mean-Confidence": "nan"}),
        Answer(body=b"x", headers={name: value for name, value in HEADERS.items() if name != "X-Colorize-Model"}),
        Answer(204, headers=HEADERS),
    ],
)
def test_what_is_no_coloured_picture_is_not_taken_for_one(answer: Answer) -> None:
    with answering(lambda _: answer) as stub, Client(stub.url) as client, pytest.raises(RemoteError, match="not a coloured picture"):
        client.colorize(PICTURE)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"error": text}).encode()))
def test_any_refusal_is_one_line_of_bounded_length(body: bytes) -> None:
    reason = Reply(status=422, headers={}, body=body).reason()
    assert reason
    assert reason.isprintable()
    assert len(reason) <= answers.LONGEST_REASON


MODEL = {"name": "photo", "sha256": "ab", "parameters": 5, "working_size": 192, "loaded": True}
_KEYS = st.sampled_from([*STATUS, *STATUS["counts"], *MODEL, "failures", "path", "reason", "archives", "models", "default"])  # type: ignore[misc]
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=5)
_ALMOST = st.dictionaries(st.sampled_from([*STATUS, *MODEL]), _JSON, max_size=3).map(lambda wrong: STATUS | MODEL | wrong)


@given(_JSON | st.dictionaries(st.sampled_from(["archives", "models"]), st.lists(_ALMOST, min_size=1, max_size=2)) | _ALMOST)
@example({"models": [MODEL | {"parameters": float("inf")}]})
def test_any_json_is_a_value_or_a_remote_error(told: Any) -> None:
    for parse in (answers.run_status, answers.run_statuses, answers.run_id, answers.served_models):
        with contextlib.suppress(RemoteError):
            parse(told)


@given(st.text(max_size=60))
def test_any_server_timing_is_a_dictionary_of_numbers(header: str) -> None:
    assert all(isinstance(value, float) for value in answers.timings(header).values())


def test_a_refusal_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda body: parsed.append(body) or loads(body))
    for body in (b'{"error": "full"}', b"none of ours"):
        reply = Reply(status=503, headers={}, body=body)
        assert (reply.is_reasoned, "full" in reply.reason()) == (body.startswith(b"{"),) * 2
    assert len(parsed) == 2


def zipped(compression: int) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("picture.jpg", b"one")
        archive.writestr("picture-2.jpg", b"two" * 100)
    return buffer.getvalue()


def packed(data: bytes) -> Colored:
    return Colored(data=data, content_type=answers.ZIP, model="m", model_sha256="", mean_confidence=0.5, timings={})


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=100)
def test_any_zip_is_files_or_a_remote_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(zipped(zipfile.ZIP_STORED))
    for at, value in changes:
        data[-1 - at % len(data)] = value
    with contextlib.suppress(RemoteError):
        packed(bytes(data)).files()


def test_an_answer_of_several_files_is_taken_apart() -> None:
    assert packed(zipped(zipfile.ZIP_STORED)).files() == {"picture.jpg": b"one", "picture-2.jpg": b"two" * 100}
    with pytest.raises(RemoteError, match="compressed"):
        packed(zipped(zipfile.ZIP_DEFLATED)).files()
    misnamed = bytearray(zipped(zipfile.ZIP_STORED).replace(b"picture.jpg", b"pictur\xff.jpg"))
    misnamed[misnamed.index(b"PK\1\2") + 9] |= 8  # it says UTF-8
    for damaged in (b"", zipped(zipfile.ZIP_STORED)[:-30], zipped(zipfile.ZIP_STORED).replace(b"one", b"eno"), bytes(misnamed)):
        with pytest.raises(RemoteError, match="no zip that can be read"):
            packed(damaged).files()


# Keys and addresses


@pytest.mark.parametrize("from_environment", [False, True])
def test_the_key_is_sent_and_is_seen_nowhere(
    twin: Twin, from_environment: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if from_environment:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
    options = {} if from_environment else {"api_key": KEY}
    with answering(failing_first(error(503, "full"), error(401, "the key is not known"))) as stub, pytest.raises(RemoteError) as raised:
        twin.call(stub.url, "colorize", PICTURE, options=options)
    assert [asked.headers["authorization"] for asked in stub.asked] == [f"Bearer {KEY}"] * 2
    client = Client(stub.url, api_key=KEY)
    for text in (caplog.text, str(raised.value), repr(raised.value), repr(client), repr(client._connection), repr(client.archive("run-1"))):
        assert KEY not in text
    client.close()


def test_without_a_key_none_is_sent(twin: Twin) -> None:
    with answering(painted) as stub:
        twin.call(stub.url, "colorize", PICTURE)
    assert "authorization" not in stub.asked[0].headers


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ü", "x" * 501])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="api_key") as raised:
        Client(api_key=key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    "server",
    ["", "127.0.0.1:8000", "ftp://host", "http://", "http://a b", "http://host:0", "http://host:99999", "http://host?x=1", "http://host#x",
     "http://me:secret@host", "http://me:secret@host:x", "http://ho\nst", "https://[::1", "http://head..local:8000"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_its_secrets(server: str) -> None:
    with pytest.raises(ConfigError, match=r"^server .*: give the service's address") as raised:
        Client(server)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(painted) as stub:
        assert twin.call(stub.url, "colorize", PICTURE, options={"attempts": 1}).data


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": float("nan")}, {"attempts": 0}, {"patience": -1}, {"patience": float("inf")}]
)
def test_limits_are_limits(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Client(**options)


def test_it_needs_neither_torch_nor_ray() -> None:
    code = "import sys; from colorize import AsyncClient, Client; Client(); sys.exit(bool({'torch', 'ray', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_every_error_is_caught_as_one() -> None:
    assert issubclass(RemoteError, ColorizeError)


def test_nothing_is_left_open(twin: Twin) -> None:
    with answering(painted) as stub:
        twin.many(stub.url, [PICTURE] * 5)
    gc.collect()  # a connection that was left open would be a ResourceWarning, which is an error here
