"""`colorize remote …` against a small HTTP server: what is written, what is sent, what is refused in which words."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from colorize.cli.main import main
from colorize.client import KEY_VARIABLE
from tests.services import Answer, Asked, answering

HEADERS = {"Content-Type": "image/jpeg", "X-Colorize-Model": "photo", "X-Colorize-Mean-Confidence": "0.75"}
RUN = {
    "id": "archive-1", "source": "/a", "target": "/b", "status": "succeeded", "seconds": 75.2, "failures": [], "reason": None,
    "counts": {"coloured": 3000, "skipped": 1, "failed": 0, "listed": 3001},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr("colorize.client.retry.FIRST_SECONDS", 0.005)
    monkeypatch.setattr("colorize.client.calls.POLL_SECONDS", (0.005, 0.05))


def painted(asked: Asked) -> Answer:
    if asked.body.startswith(b"bad"):
        return Answer(422, b'{"error": "the picture: is text, not a picture"}')
    return Answer(body=b"colour " + asked.body, headers=HEADERS)


def as_json(told: object, status: int = 200) -> Callable[[Asked], Answer]:
    return lambda _: Answer(status, json.dumps(told).encode())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_come_out_under_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(b"%d" % number)
    output = tmp_path / "new" / "out"
    files = [str(tmp_path / f"{number}.jpg") for number in range(10)]
    with answering(painted) as stub:
        assert main(["remote", "picture", *files, "-o", str(output), "--server", stub.url, "--vividness", "1", "--model", "photo"]) == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == {f"{number}.jpg": b"colour %d" % number for number in range(10)}
    assert {tuple(sorted(asked.query.items())) for asked in stub.asked} == {(("model", "photo"), ("vividness", "1.0"))}
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"{output / f'{number}.jpg'}  photo, confidence 0.75" for number in range(10)]
    assert told.err == ""


def test_a_file_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in {"a.jpg": b"a", "bad.jpg": b"bad", "there.jpg": b"t", "z.jpg": b"z", "out/there.jpg": b"mine"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in ("a.jpg", "bad.jpg", "none.jpg", "there.jpg", "z.jpg")]
    with answering(painted) as stub:
        assert main(["remote", "picture", *files, "-o", str(tmp_path / "out"), "--server", stub.url]) == 1
    assert names(tmp_path / "out") == ["a.jpg", "there.jpg", "z.jpg"]
    assert (tmp_path / "out" / "there.jpg").read_bytes() == b"mine"
    assert sorted(asked.body for asked in stub.asked) == [b"a", b"bad", b"z"], "what cannot be written is not sent"
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"colorize: {tmp_path / 'bad.jpg'}: is text, not a picture",
        f"colorize: {tmp_path / 'none.jpg'}: there is no such file",
        f"colorize: {tmp_path / 'there.jpg'}: {tmp_path / 'out' / 'there.jpg'} is there already, and nothing is overwritten: "
        "give another folder",
    ]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")

    def answer(asked: Asked) -> Answer:
        (tmp_path / "out" / "a.jpg").write_bytes(b"mine")
        return painted(asked)

    with answering(answer) as stub:
        assert main(["remote", "picture", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out"), "--server", stub.url]) == 1
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"mine"
    assert names(tmp_path / "out") == ["a.jpg"]


def zipped(*entries: str) -> Answer:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in entries:
            archive.writestr(name, f"this is {name}")
    return Answer(body=buffer.getvalue(), headers=HEADERS | {"Content-Type": "application/zip"})


def test_candidates_and_a_map_are_named_as_at_home(tmp_path: Path) -> None:
    (tmp_path / "a.b.tif").write_bytes(b"a")
    arguments = ["remote", "picture", str(tmp_path / "a.b.tif"), "-o", str(tmp_path / "out"), "--candidates", "2", "--confidence"]
    with answering(lambda _: zipped("../../x.jpg", "/etc/2.jpg", "picture-confidence.png")) as stub:
        assert main([*arguments, "--format", "jpeg", "--server", stub.url]) == 0
    assert stub.asked[0].query == {"candidates": "2", "confidence": "true", "format": "jpeg"}
    assert names(tmp_path / "out") == ["a.b-2.tif.jpg", "a.b-confidence.png", "a.b.tif.jpg"]
    assert (tmp_path / "out" / "a.b-2.tif.jpg").read_text() == "this is /etc/2.jpg"


def test_an_answer_that_is_not_what_was_asked_for_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with answering(lambda _: zipped("a.jpg", "a-2.jpg")) as stub:
        assert main(["remote", "picture", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out"), "--server", stub.url]) == 1
    assert names(tmp_path / "out") == []
    assert capsys.readouterr().err == f"colorize: {tmp_path / 'a.jpg'}: the service answers with 2 files, and 1 were asked for\n"


def test_the_folder_of_the_pictures_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with answering(painted) as stub:
        assert main(["remote", "picture", str(tmp_path / "a.jpg"), "-o", str(tmp_path), "--server", stub.url]) == 1
    assert stub.asked == []
    assert "is not overwritten" in capsys.readouterr().err


def test_a_run_is_watched_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    left = [{"id": "archive-1", "status": "pending"}, RUN | {"status": "running", "counts": {}}, RUN]
    with answering(lambda _: Answer(200, json.dumps(left.pop(0)).encode())) as stub:
        assert main(["remote", "archive", "/a", "/b", "--server", stub.url, "--recolor"]) == 0
    assert json.loads(stub.asked[0].body) == {"source": "/a", "target": "/b", "recolor": True}
    assert capsys.readouterr().out.splitlines() == [
        "run archive-1", "run archive-1 succeeded: 3,000 coloured, 0 failed, 1 skipped in 1 min 15 s", "/a → /b",
    ]  # fmt: skip


def test_a_run_that_broke_off_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    left = [{"id": "archive-1"}, RUN | {"status": "failed", "reason": "/b: cannot be written"}]
    with answering(lambda _: Answer(200, json.dumps(left.pop(0)).encode())) as stub:
        assert main(["remote", "archive", "/a", "/b", "--server", stub.url]) == 1
    assert capsys.readouterr().err == "colorize: /b: cannot be written\n"


def test_a_run_may_be_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(as_json({"id": "archive-1", "status": "pending"}, 202)) as stub:
        assert main(["remote", "archive", "/a", "/b", "--detach", "--server", stub.url]) == 0
    assert (capsys.readouterr().out, len(stub.asked)) == ("archive-1\n", 1)


def test_runs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(as_json({"archives": [RUN]})) as stub:
        assert main(["remote", "status", "--server", stub.url]) == 0
    assert capsys.readouterr().out == "archive-1  succeeded  3,000 coloured, 0 failed, 1 skipped  1 min 15 s  /a → /b\n"
    with answering(as_json({"archives": []})) as stub:
        assert main(["remote", "status", "--server", stub.url]) == 0
    assert capsys.readouterr().out == "no runs\n"


def test_a_run_is_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    for status, told in (("running", "is to end; what it has done is kept"), ("stopped", "is over already: stopped")):
        with answering(as_json({"id": "archive-1", "status": status}, 202)) as stub:
            assert main(["remote", "cancel", "archive-1", "--server", stub.url]) == 0
        assert (stub.asked[0].method, stub.asked[0].path) == ("DELETE", "/v1/archives/archive-1")
        assert capsys.readouterr().out == f"run archive-1 {told}\n"


def test_why_nothing_begins_yet_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    busy = b'{"error": "bulk runs: 1 run at a time"}'
    left = [Answer(429, busy), Answer(429, busy), Answer(202, b'{"id": "archive-1"}'), Answer(503), Answer(200, json.dumps(RUN).encode())]
    with answering(lambda _: left.pop(0)) as stub:
        assert main(["remote", "archive", "/a", "/b", "--server", stub.url]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"colorize: {stub.url}: bulk runs: 1 run at a time; asking again",
        f"colorize: {stub.url}: the service answers with status 503; asking again",
    ]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["archive", "a", "b", "--vividness", "nan"], "vividness"),
        (["archive", "\udcff", "b"], "source"),
        (["status", "\udcff"], "run"),
        (["cancel", "\udcff"], "run"),
        (["picture", "g.jpg", "-o", "out", "--model", "\udcff"], "model"),
    ],
)
def test_what_cannot_be_sent_is_one_line(
    arguments: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.jpg").write_bytes(b"g")
    with answering(painted) as stub:
        assert main(["remote", *arguments, "--server", stub.url]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"colorize: {name} ")
    assert "cannot be sent" in told
    assert (told.count("\n"), stub.asked) == (1, [])


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    model = {"name": "photo", "sha256": "ab" * 32, "parameters": 5_100_000, "working_size": 192, "loaded": True}
    with answering(as_json({"default": "photo", "models": [model]})) as stub:
        assert main(["remote", "models", "--server", stub.url]) == 0
    assert capsys.readouterr().out == "photo  5.1 M parameters  192 pixels  abababababab  the default, in memory\n"


@pytest.mark.parametrize("arguments", [["status"], ["status", "x"], ["cancel", "x"], ["models"], ["archive", "/a", "/b"]])
def test_what_the_service_refuses_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "kEy-of-nobody")
    with answering(as_json({"error": "the API key is not one of this service's"}, 401)) as stub:
        assert main(["remote", *arguments, "--server", stub.url]) == 1
    assert capsys.readouterr().err == f"colorize: {stub.url}: the API key is not one of this service's\n"
    assert stub.asked[0].headers["authorization"] == "Bearer kEy-of-nobody"


def test_it_loads_neither_torch_nor_ray() -> None:
    command = "main(['remote', 'models', '--server', 'x'])"
    code = f"import sys; from colorize.cli.main import main; {command}; sys.exit(bool({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, "colorize: server x: give the service's address, such as http://127.0.0.1:8000\n")
