"""Model files: what is saved comes back, and everything else is refused in one line that names the file and the cause."""

import dataclasses
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from colorize.cli.main import main
from colorize.errors import ModelError, PictureError
from colorize.model.card import CARD_KEY, DIGEST_KEY, ModelCard, read_card, resolve, shipped_names
from colorize.model.colormodel import ColorModel, load_model
from colorize.train import finetune
from tests.models import small_model

MODEL = small_model()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    MODEL.save(path)
    return path.read_bytes()


def check_refused(path: Path, cause: str = "", *, read: Callable[[Path], object] = ColorModel.load) -> None:
    with pytest.raises(ModelError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert re.search(cause, message), message


def test_where_the_tensors_are_is_not_told(tmp_path: Path, saved: bytes) -> None:
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    for broken in ({}, {"data_offsets": [3]}, {"data_offsets": "none"}, 7):
        (tmp_path / "m.safetensors").write_bytes(with_header(saved, json.dumps(header | {"palette.bins": broken}).encode()))
        check_refused(tmp_path / "m.safetensors", "damaged: its header does not say where its tensors are", read=read_card)


def check_equal(model: ColorModel, other: ColorModel) -> None:
    """The same weights, palette and card; nothing else decides what a model answers."""
    assert dataclasses.replace(model.card, weights_sha256="") == dataclasses.replace(other.card, weights_sha256="")
    assert torch.equal(model.palette.bins_k2, other.palette.bins_k2)
    assert torch.equal(model.palette.prior_k, other.palette.prior_k)
    state = model.network.state_dict()
    for name, tensor in other.network.state_dict().items():
        assert torch.equal(state[name], tensor), name


def with_card(saved: bytes, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> bytes:
    """The file with an edited card; `sign`: with a checksum that fits it."""
    length = int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8 : 8 + length])
    metadata = header["__metadata__"]
    card = json.loads(metadata[CARD_KEY])
    change(card)
    metadata[CARD_KEY] = json.dumps(card)
    if sign:
        del metadata[DIGEST_KEY]
    return with_header(saved, json.dumps(header).encode())


def with_header(saved: bytes, header: bytes) -> bytes:
    length = int.from_bytes(saved[:8], "little")
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + saved[8 + length :]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    MODEL.save(path)
    loaded = ColorModel.load(path)
    assert loaded.card.weights_sha256
    assert dataclasses.replace(loaded.card, weights_sha256="") == MODEL.card
    assert loaded.dial == MODEL.dial
    assert loaded.palette.step == MODEL.palette.step
    assert torch.equal(loaded.palette.bins_k2, MODEL.palette.bins_k2)
    assert torch.equal(loaded.palette.prior_k, MODEL.palette.prior_k)
    assert not loaded.network.training
    original = MODEL.network.state_dict()
    restored = loaded.network.state_dict()
    assert restored.keys() == original.keys()
    for name, tensor in restored.items():
        assert tensor.dtype == original[name].dtype
        if "running_" in name or not tensor.is_floating_point():
            assert torch.equal(tensor, original[name]), name
        else:
            assert torch.equal(tensor, original[name].half().float()), name


def test_loading_and_saving_again_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    MODEL.save(first)
    ColorModel.load(first).save(second)
    assert read_card(second) == read_card(first)
    check_equal(ColorModel.load(first), ColorModel.load(second))


def test_the_weights_are_stored_in_half_precision(saved: bytes) -> None:
    assert len(saved) < 2 * MODEL.card.parameters + 20_000


def test_the_card_is_read_without_torch_and_ray(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    MODEL.save(path)
    program = (
        "import sys; from pathlib import Path; from colorize.model.card import read_card; "
        "print(read_card(Path(sys.argv[1])).name, *sorted({'torch', 'ray', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["small"]


def test_a_model_is_found_by_name_by_file_and_by_run(tmp_path: Path) -> None:
    MODEL.save(tmp_path / "model.safetensors")
    check_equal(load_model(tmp_path), ColorModel.load(tmp_path / "model.safetensors"))
    assert "cifar10" in shipped_names()
    assert resolve("cifar10").name == "cifar10.safetensors"
    assert read_card(resolve("cifar10")).parameters > 1_000_000


@pytest.mark.parametrize("folder", [False, True])
def test_missing(tmp_path: Path, folder: bool) -> None:
    if folder:
        check_refused(tmp_path, "a directory without model.safetensors", read=load_model)
        check_refused(tmp_path, "cannot be read")
    else:
        for read in (load_model, ColorModel.load):
            check_refused(tmp_path / "m.safetensors", "no such model; the models that ship: .*cifar10", read=read)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    check_refused(tmp_path / ("m" * 300), "cannot be read", read=load_model)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "the file is empty"),
        (b"\x10", "not a safetensors file"),
        (b"not a model, but a text of some length", "not a safetensors file"),
        (struct.pack("<Q", 5) + b"[1,2]", "its header is not a JSON object"),
        (struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc", "its header is not a JSON object"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "its header is not a JSON object"),
        (struct.pack("<Q", 18) + b'{"__metadata__":7}', "its header is not a JSON object"),
        (struct.pack("<Q", 2) + b"{}", "of another program"),
        (struct.pack("<Q", 10_000) + b"{}", "truncated"),
    ],
)
def test_foreign_bytes(tmp_path: Path, data: bytes, cause: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    check_refused(path, cause)
    check_refused(path, cause, read=read_card)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_unread(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save(MODEL.network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    check_refused(path, "PyTorch pickle; only safetensors")


def test_safetensors_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        check_refused(path, "of another program: it has no colorize card")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda card: card.update(format=2), r"written by a newer colorize \(format 2; this one reads up to 1\): upgrade"),
        (lambda card: card.update(format="1"), "written by a newer colorize"),
        (lambda card: card.pop("format"), "its card is not readable"),
        (lambda card: card.update(colour="blue", age=3), "its card has unknown fields: age, colour"),
        (lambda card: card.pop("dial"), "its card is incomplete .*dial"),
        (lambda card: card["network"].update(width=16), "of another architecture"),
        (lambda card: card["network"].update(depth=2), "of another architecture"),
        (lambda card: card["network"].update(bins=1), "of another architecture .*bins 1"),
        (lambda card: card["network"].update(attention=True), "of another architecture .*attention"),
        (lambda card: card.update(network="unet"), "its card is damaged: network is 'unet', not an object"),
        (lambda card: card.update(palette_step="wide"), "palette_step is 'wide', not a number in 1…128"),
        (lambda card: card.update(palette_step=float("inf")), "palette_step is inf"),
        (lambda card: card.update(name=3), "name is 3, not a text"),
        (lambda card: card.update(parameters="many"), "parameters is 'many', not a number of parameters"),
        (lambda card: card.update(working_size="x"), "working_size is 'x', not a number of pixels"),
        (lambda card: card.update(working_size=0), "working_size is 0"),
        (lambda card: card.update(working_size=4097), "working_size is 4097, not a number of pixels, 1 to 4096"),
        (lambda card: card.update(palette_step=10**400), "palette_step is 1000"),
        (lambda card: card.update(palette_step=0.001), "palette_step is 0.001"),
        (lambda card: card.update(parameters=10**400), "parameters is 1000"),
        (lambda card: card.update(metrics={"metrics": {"ssim": 10**400}}), "metrics is .*1000"),
        (lambda card: card["dial"].update(stiffness=10**400), "dial is .*1000"),
        (lambda card: card["dial"].update(vivid_lift=1e30), "dial is .*1e[+]30"),
        (lambda card: card.update(format=10**400), "written by a newer colorize"),
        (lambda card: card.update(mirrored="no"), "mirrored is 'no', not true or false"),
        (lambda card: card.update(training=[1]), r"training is \[1\], not an object"),
        (lambda card: card.update(training={"pictures": "many"}), "training is .*many"),
        (lambda card: card.update(training={"config": 3}), "training is .*3"),
        (lambda card: card.update(metrics=None), "metrics is None, not an object"),
        (lambda card: card.update(metrics={"metrics": {"ssim": "good"}}), "metrics is .*good"),
        (lambda card: card.update(weights_sha256=7), "weights_sha256 is 7"),
        (lambda card: card["dial"].update(accurate_temperature="x"), "dial is .*, not numbers from 0 to 1000, temperatures above 0"),
        (lambda card: card["dial"].update(accurate_temperature=0), "dial is "),
        (lambda card: card["dial"].update(stiffness=float("nan")), "dial is "),
        (lambda card: card["dial"].update(hue=1), "of another architecture .*hue"),
        (lambda card: card.update(weights_sha256=""), "damaged: its weights do not match"),
    ],
)
def test_cards_of_other_models(tmp_path: Path, saved: bytes, change: Callable[[dict[str, Any]], object], cause: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(with_card(saved, change))
    check_refused(path, cause)


def test_numbers_of_more_digits_than_python_reads(tmp_path: Path, saved: bytes) -> None:
    digits, path = 5000 * "9", tmp_path / "m.safetensors"
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    path.write_bytes(with_header(saved, json.dumps(header | {"far": 0}).replace(" 0}", f" {digits}}}").encode()))
    check_refused(path, "not a safetensors file", read=read_card)
    text = f'{{"format": {digits}}}'
    header["__metadata__"] = {CARD_KEY: text, DIGEST_KEY: hashlib.sha256(text.encode()).hexdigest()}
    path.write_bytes(with_header(saved, json.dumps(header).encode()))
    check_refused(path, "its card is not readable", read=read_card)


def test_models_says_what_a_card_says_and_no_more(tmp_path: Path, saved: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores that are missing are not told; JSON has null where a card has NaN."""

    def with_nan(card: dict[str, Any]) -> None:
        card.update(metrics={"metrics": {"ssim": 0.5, "psnr_mean": float("nan")}}, training={"epochs": [float("nan")]})

    path = tmp_path / "m.safetensors"
    path.write_bytes(with_card(saved, with_nan))
    assert main(["models", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "0.5000" in printed
    assert "dB" not in printed
    assert main(["models", str(path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["metrics"] == {"metrics": {"ssim": 0.5, "psnr_mean": None}}
    assert told["training_data"] == {"epochs": [None]}
    ColorModel.load(path).save(path)
    json.loads(read_card(path).to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("change", [{"attention": True}, {"width": "wide"}])
def test_a_network_of_another_program_is_not_fine_tuned(tmp_path: Path, saved: bytes, change: dict[str, Any]) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(with_card(saved, lambda card: card["network"].update(change)))
    check_refused(path, "of another architecture", read=lambda path: finetune.settings(str(path), "cifar10-sample", workers=1))


def test_an_edited_card_does_not_match_its_checksum(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(with_card(saved, lambda card: card["dial"].update(accurate_temperature=0.5), sign=False))
    check_refused(path, "damaged: its card does not match its checksum")


def test_a_card_without_a_checksum_is_read(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(with_card(saved, lambda card: card.update(name="unsigned")))
    assert ColorModel.load(path).card.name == "unsigned"


def test_a_tensor_of_another_size(tmp_path: Path, saved: bytes) -> None:
    """The weights are whole and signed, but are not those of the network that the card describes."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved)
    card, tensors = read_card(path), load_file(path)
    other = small_model(width=12)
    other = dataclasses.replace(other, card=dataclasses.replace(other.card, network=card.network))
    other.save(path)
    check_refused(path, "of another architecture .*size mismatch")
    path.write_bytes(save(tensors, metadata={CARD_KEY: ModelCard(**dataclasses.asdict(card) | {"weights_sha256": "0"}).to_json()}))
    check_refused(path, "damaged: its weights do not match the checksum")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e6])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    """Of a training that diverged; a million is none any more in half precision."""
    model = small_model()
    with torch.no_grad():
        model.network.head.weight.view(-1)[3] = value
    path = tmp_path / "m.safetensors"
    model.save(path)
    check_refused(path, "not all of its weights are numbers: its training diverged")


@settings(max_examples=60)
@given(data=st.data())
def test_truncated_anywhere(saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(saved) - 1) | st.integers(0, 16) | st.integers(len(saved) - 16, len(saved) - 1))
    path = tmp_path_factory.getbasetemp() / "truncated.safetensors"
    path.write_bytes(saved[:length])
    for read in (ColorModel.load, read_card):
        check_refused(path, "empty|not a safetensors file|truncated", read=read)


@settings(max_examples=20)
@given(tail=st.binary(min_size=1, max_size=100))
@example(tail=b"\0")
def test_something_appended(saved: bytes, tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "longer.safetensors"
    path.write_bytes(saved + tail)
    for read in (ColorModel.load, read_card):
        check_refused(path, "damaged", read=read)


@settings(max_examples=300)
@given(data=st.data())
def test_a_flipped_bit_anywhere(saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    header = 8 + int.from_bytes(saved[:8], "little")
    place = data.draw(st.integers(0, header - 1) | st.integers(0, len(saved) - 1))
    damaged = bytearray(saved)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(damaged)
    try:
        model = ColorModel.load(path)
    except ModelError:
        check_refused(path)
    else:
        path.write_bytes(saved)
        check_equal(model, ColorModel.load(path))


@pytest.mark.parametrize("place", ["missing/m.safetensors", "folder", "file/m.safetensors"])
def test_where_nothing_can_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PictureError, match=r"^[^\n]*: cannot be written: [^\n]*$") as caught:
        MODEL.save(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PictureError, match="cannot be written"):
        MODEL.save(tmp_path / "m.safetensors")
    tmp_path.chmod(0o700)
