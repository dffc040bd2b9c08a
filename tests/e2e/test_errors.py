"""What a user does wrong is answered in one line and with exit code 1; what a user stops, stops."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from colorize import cluster
from colorize.cli.main import main
from colorize.data import cifar10
from colorize.model.card import resolve
from colorize.model.colormodel import ColorModel
from tests.models import small_model
from tests.processes import PROGRAM, environment, left_behind

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

THINGS = [
    "cifar.tar.gz", "empty.safetensors", "header.safetensors", "no-pictures", "pickle.pt", "run", "small.safetensors", "text.safetensors",
    "truncated.safetensors", "truncated.tar.gz",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with things that are not what they are taken for."""
    place = tmp_path_factory.mktemp("place")
    shipped = resolve("cifar10").read_bytes()
    (place / "truncated.safetensors").write_bytes(shipped[: len(shipped) // 2])
    (place / "header.safetensors").write_bytes(shipped[:100])
    (place / "pickle.pt").write_bytes(pickle.dumps({"weights": [1, 2, 3]}, protocol=4))
    (place / "text.safetensors").write_text("a text, not a model")
    (place / "empty.safetensors").touch()
    small_model().save(place / "small.safetensors")
    (place / "run").mkdir()
    (place / "run/mine.txt").write_text("mine")
    (place / "no-pictures").mkdir()
    with tarfile.open(place / "cifar.tar.gz", "w:gz") as archive:
        for name in cifar10.MEMBERS["test"]:
            part = place / name
            part.write_bytes(bytes(cifar10.RECORDS_A_FILE * cifar10.RECORD_BYTES))
            archive.add(part, f"{cifar10.FOLDER_NAME}/{name}")
            part.unlink()
    whole = (place / "cifar.tar.gz").read_bytes()
    (place / "truncated.tar.gz").write_bytes(whole[: len(whole) // 2])
    return place


def check_one_line(code: int, out: str, err: str, says: str, place: Path) -> None:
    assert code == 1, (out, err)
    expected = says.replace("{place}", re.escape(str(place)))
    assert re.fullmatch(rf"colorize: {expected}[^\n]*\n", err), err
    assert "Traceback" not in out
    assert sorted(path.name for path in place.iterdir()) == THINGS, "nothing new was left behind"
    assert [path.name for path in (place / "run").iterdir()] == ["mine.txt"]


MISTAKES = [
    ("evaluate missing.safetensors", r"missing\.safetensors: no such model; the models that ship: .*cifar10"),
    ("evaluate {place}", r"{place}: a directory without model\.safetensors"),
    ("evaluate {place}/pickle.pt", r"{place}/pickle\.pt: a PyTorch pickle; only safetensors models are read"),
    ("evaluate {place}/truncated.safetensors", r"{place}/truncated\.safetensors: truncated \(\d+ bytes, by its header"),
    ("evaluate {place}/header.safetensors", r"{place}/header\.safetensors: truncated \(100 bytes, "),
    ("evaluate {place}/text.safetensors", r"{place}/text\.safetensors: not a safetensors file"),
    ("evaluate {place}/empty.safetensors", r"{place}/empty\.safetensors: the file is empty"),
    ("evaluate cifar10 --vividness 1.5", r"vividness 1\.5: must lie in 0…1"),
    ("evaluate cifar10 --json {place}/none/scores.json", r"{place}/none/scores\.json: its folder does not exist"),
    ("evaluate cifar10 --sheet {place}/none/sheet.png", r"{place}/none/sheet\.png: its folder does not exist"),
    ("evaluate cifar10 --json {place}", r"{place}: is a folder; give the name of a file"),
    ("evaluate {place}/small.safetensors --limit 0", "limit 0: must be 1 or more"),
    ("evaluate cifar10 --data foo", r"'foo': no such data source: write cifar10-sample, cifar10, "),
    ("evaluate cifar10 --address 127.0.0.1:1", r"127\.0\.0\.1:1: no Ray cluster answers there \(Connection refused\): "),
    ("evaluate cifar10 --address nowhere", r"nowhere: not a Ray address: give host:port"),
    ("models missing.safetensors", r"missing\.safetensors: no such model"),
    ("models {place}/pickle.pt", r"{place}/pickle\.pt: a PyTorch pickle"),
    ("train --resume {place}/none", r"{place}/none: not a training run \(it has no config\.json\)"),
    ("train --resume {place}/run", r"{place}/run: not a training run \(it has no config\.json\)"),
    ("train --resume {place}/run --epochs 3", r"--resume {place}/run: a run goes on with its own settings; leave out the other options"),
    ("train --run {place}/run", r"{place}/run: is there already; resume it with --resume {place}/run, or name another one with --run"),
    ("train --epochs 0", "epochs 0: must be above 0"),
    ("train --workers 0", "workers 0: must be above 0"),
    ("train --workers -2", "workers -2: must be above 0"),
    ("train --workers many", "--workers many: must be a number such as 4, or a range such as 1-4"),
    ("train --workers 3-2", "min_workers 3: must lie in 1…2, the workers"),
    ("train --workers 2 --batch-size 63", "batch_size 63: must be a multiple of the workers, 2"),
    ("train --learning-rate 0", r"learning_rate 0\.0: must be above 0"),
    ("train --width 6", "width 6: must be a multiple of 4"),
    ("train --size 64", r"--size 64: the pictures of cifar10-sample are 32×32"),
    ("train --seed -1", "seed -1: must lie in 0…"),
    ("train --limit 0", "limit 0: must be 1 or more"),
    ("train --data foo", "'foo': no such data source: write cifar10-sample, cifar10, cifar10:PATH, "),
    ("train --data folder:s3://KEY:WORD@bucket/a", r"folder:s3://…@bucket/a: holds a secret, which would be kept with "),
    ("train --resume s3://KEY:WORD@bucket/a --epochs 3", r"--resume s3://…@bucket/a: a run goes on with its own settings"),
    ("train --address 127.0.0.1:1", r"127\.0\.0\.1:1: no Ray cluster answers there"),
    ("finetune", r"finetune takes a MODEL and --data, or --resume with a run"),
    ("finetune cifar10", r"finetune takes a MODEL and --data, or --resume with a run"),
    ("finetune missing.safetensors --data cifar10-sample", r"missing\.safetensors: no such model"),
    (
        "finetune {place}/truncated.safetensors --data cifar10-sample",
        r"{place}/truncated\.safetensors: truncated \(\d+ bytes, by its header",
    ),
    ("finetune cifar10 --data foo", "'foo': no such data source: write cifar10-sample, cifar10, "),
    ("finetune cifar10 --data cifar10-sample --size 64", r"--size 64: the pictures of cifar10-sample are 32×32"),
    ("finetune photo --data folder:{place} --size 100", "size 100: must be a multiple of 32 with a pretrained encoder"),
    ("finetune cifar10 --data cifar10-sample --epochs 0", "epochs 0: must be above 0"),
    ("finetune cifar10 --data cifar10-sample --workers 0", "workers 0: must be above 0"),
    ("finetune cifar10 --data cifar10-sample --learning-rate 0", r"learning_rate 0\.0: must be above 0"),
    (
        "finetune cifar10 --data cifar10-sample --run {place}/run",
        r"{place}/run: is there already; resume it with --resume {place}/run, or ",
    ),
    ("finetune --resume {place}/run", r"{place}/run: not a fine-tuning run \(it has no config\.json\)"),
    ("finetune cifar10 --resume {place}/run", r"--resume {place}/run: a run goes on with its own model and settings; leave out "),
    ("adapt", r"adapt takes an ARCHIVE, or --resume with a run"),
    ("adapt {place}/none", r"{place}/none: there is no such folder"),
    ("adapt {place}/no-pictures", r"{place}/no-pictures: the folder is empty"),
    ("adapt {place}/pickle.pt", r"{place}/pickle\.pt: is a file; give the folder that holds the pictures"),
    ("adapt {place} --run {place}/new", r"{place}/new: lies inside the source {place}; give a folder outside it"),
    ("adapt {place} --model missing.safetensors", r"missing\.safetensors: no such model"),
    ("adapt --resume {place}/run", r"{place}/run: not a fine-tuning run"),
]

MISTAKES_WITH_RAY = [
    ("train --workers 99", "99 workers need 99 CPUs, the cluster has 2: use --workers 2 or fewer"),
    ("train --gpu --workers 1", "1 worker needs 1 GPU, the cluster has 0: join a larger one"),
    pytest.param(
        "train --limit 10 --run {place}/new",
        "cifar10-sample: 10 training pictures are fewer than one batch of 64",
        marks=pytest.mark.slow,
    ),
    ("finetune cifar10 --data folder:{place}/no-pictures", r"{place}/no-pictures: the folder is empty"),
    pytest.param(
        "finetune cifar10 --data cifar10-sample --limit 10",
        "cifar10-sample: 10 colour pictures: fine-tuning needs 16 at least, ",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "finetune cifar10 --data cifar10-sample --limit 40 --batch-size 64 --workers 1",
        "cifar10-sample: [0-9]+ training pictures are ",
        marks=pytest.mark.slow,
    ),
    ("finetune cifar10 --data cifar10-sample --workers 99", "99 workers need 99 CPUs, the cluster has 2: use --workers 2 or fewer"),
    ("train --data cifar10:/missing", "/missing: no such file or folder: give the CIFAR-10 binary archive"),
    ("train --data cifar10:{place}/truncated.tar.gz", r"{place}/truncated\.tar\.gz: truncated or damaged \("),
    ("train --data folder:{place}/no-pictures", r"{place}/no-pictures: the folder is empty"),
    ("evaluate {place}/small.safetensors --data cifar10:{place}/truncated.tar.gz", r"{place}/truncated\.tar\.gz: truncated or damaged \("),
    ("evaluate {place}/small.safetensors --data cifar10:{place}/cifar.tar.gz", r"{place}/cifar\.tar\.gz: test_batch\.bin: altered: "),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES)
def test_mistakes_that_are_seen_without_ray(
    arguments: str, says: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = main(arguments.format(place=place).split())
    check_one_line(code, *capsys.readouterr(), says, place)


@pytest.fixture(scope="module")
def head() -> Iterator[None]:
    """Commands that run in this process join the Ray that it is connected to."""
    with cluster.connect("local", num_cpus=2):
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("head")
@pytest.mark.parametrize(("arguments", "says"), MISTAKES_WITH_RAY)
def test_mistakes_that_are_seen_with_ray(
    arguments: str, says: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    code = main(arguments.format(place=place).split())
    out, err = capsys.readouterr()
    check_one_line(code, out, err, says, place)
    assert out.startswith("Ray ")


def test_the_program_itself(place: Path) -> None:
    """The same through a process: the line on stderr, the exit code, nothing else."""
    done = subprocess.run(
        [PROGRAM, "evaluate", place / "pickle.pt"],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment(uuid.uuid4().hex),
        check=False,
    )
    check_one_line(done.returncode, done.stdout, done.stderr, r"{place}/pickle\.pt: a PyTorch pickle", place)
    assert done.stdout == ""


NOBODY = """
import pwd, sys
def unknown(_): raise KeyError
pwd.getpwuid = unknown
from colorize.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_user_whom_nobody_has_named(place: Path) -> None:
    """As a container has one: a number, without a name and a home folder, which Ray asks for when it is imported."""
    variables = {name: value for name, value in environment(uuid.uuid4().hex).items() if name != "HOME"}
    command = [sys.executable, "-c", NOBODY, "train", "--data", "cifar10-sample", "--run", str(place / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=variables, check=False)
    check_one_line(done.returncode, done.stdout, done.stderr, "~: there is no home folder: name one in the variable HOME", place)


@pytest.mark.parametrize("arguments", [["paint"], ["train", "--epochs", "many"], ["evaluate"], ["train", "--colour", "blue"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_and_version_load_neither_torch_nor_ray() -> None:
    program = (
        "import sys\n"
        "from colorize.cli.main import app, main\n"
        "commands = [command.name for command in app.registered_commands]\n"
        "codes = [main([*words, '--help']) for words in ([], *([command] for command in commands))]\n"
        "codes += [main(['--version']), main(['models', '--json'])]\n"
        "assert {'train', 'evaluate', 'models'} <= set(commands), commands\n"
        "print(codes, sorted({'torch', 'ray', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    codes, _, loaded = done.stderr.strip().rpartition("] [")
    assert set(codes.strip("[").split(", ")) == {"0"}
    assert loaded == "]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"colorize {version('colorize')}\n"


def test_models_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    shipped = json.loads(capsys.readouterr().out)
    assert len(shipped) >= 1
    for facts in shipped:
        assert list(facts) == ["name", "parameters", "bytes", "training_data", "metrics"]
    assert shipped[0]["bytes"] == resolve("cifar10").stat().st_size <= 10_000_000
    assert main(["models", str(place / "small.safetensors"), "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    model = ColorModel.load(place / "small.safetensors")
    assert (facts["name"], facts["parameters"]) == ("small", model.card.parameters)
    assert facts["training_data"] == {"data": "random", "pictures": 0}
    assert main(["models", str(place / "small.safetensors")]) == 0
    assert re.search(r"^small +0\.0 M +0\.0 MB +0 +0\.5000 +20\.00 dB *$", capsys.readouterr().out, re.MULTILINE)


def start(mark: str, *arguments: object) -> subprocess.Popen[str]:
    """The program in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment(mark),
    )  # fmt: skip


def stop(program: subprocess.Popen[str], after: Callable[[str], bool], number: signal.Signals) -> tuple[list[str], str]:
    """Sends the whole group a signal once a line of output is there, as a terminal does; gives the lines and what stderr said."""
    assert program.stdout is not None
    seen: list[str] = []
    for line in program.stdout:
        seen.append(line)
        if after(line):
            break
    assert seen, program.communicate()
    os.killpg(program.pid, number)
    rest, errors = program.communicate(timeout=300)
    return seen + rest.splitlines(keepends=True), errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_nothing_behind_but_its_epochs(tmp_path: Path, number: signal.Signals) -> None:
    mark, directory = uuid.uuid4().hex, tmp_path / "run"
    settings = ["--epochs", 3, "--width", 16, "--depth", 2, "--run", directory]
    program = start(mark, "train", *settings)
    lines, errors = stop(program, lambda line: line.startswith("epoch 1/3"), number)
    assert program.returncode == 130, (lines, errors)
    assert lines[-1].startswith("epoch 1/3"), "stopped in the middle of the second epoch"
    assert errors == "colorize: interrupted\n"
    assert left_behind(mark) == []
    (checkpoint,) = (path for path in (directory / "ray").iterdir() if path.is_dir())
    assert json.loads((checkpoint / "state.json").read_text())["epoch"] == 1
    assert not (directory / "model.safetensors").exists()

    done = subprocess.run([PROGRAM, "train", "--resume", directory], capture_output=True, text=True, env=environment(mark), check=False)
    assert done.returncode == 0, done.stderr
    epochs = [line[:9] for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert epochs == ["epoch 2/3", "epoch 3/3"]
    ColorModel.load(directory / "model.safetensors")
    assert [row["epoch"] for row in json.loads((directory / "history.json").read_text())] == [1, 2, 3]
    assert left_behind(mark) == []


def test_an_interrupt_that_a_callback_swallows_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Thing:
        pass

    @contextmanager
    def collecting() -> Iterator[None]:
        thing = Thing()
        reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing  # the callback is interrupted, and Python goes on
        assert reference() is None
        threading.Event().wait(20)
        yield

    assert main(["--version"], around=collecting()) == 130
    assert capsys.readouterr() == ("", "colorize: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("after", ["Ray ", "training "])
def test_an_interrupt_before_the_first_epoch(tmp_path: Path, after: str) -> None:
    mark = uuid.uuid4().hex
    program = start(mark, "train", "--epochs", 50, "--width", 16, "--run", tmp_path / "run")
    lines, errors = stop(program, lambda line: line.startswith(after), signal.SIGINT)
    assert program.returncode == 130, (lines, errors)
    assert errors == "colorize: interrupted\n"
    assert left_behind(mark) == []
