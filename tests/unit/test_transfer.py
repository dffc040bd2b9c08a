"""What a fine-tuning keeps of the model it starts from: the old logits' meaning, the prior, the batch statistics."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from colorize.archive.colors import Survey
from colorize.cli.finetune import conclude
from colorize.cli.train import directory_of
from colorize.data.parts import digests
from colorize.errors import ConfigError, ModelError, RunError
from colorize.model.card import read_card, resolve
from colorize.model.colormodel import ColorModel
from colorize.model.palette import Palette
from colorize.storage.place import LocalPlace
from colorize.train.checkpoint import COUNTERS, TENSORS, publish, seal
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.finetune import (
    BATCH,
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    SHOWN,
    Comparison,
    create_finetuning,
    open_finetuning,
    settings,
)
from colorize.train.learner import Learner
from colorize.train.transfer import extended, freeze_statistics
from tests.models import small_model, small_palette

NEW = torch.tensor([60.0, -60.0])
"""A node of the small palette's grid that lies beyond its bins."""


def further(share: float = 0.3) -> torch.Tensor:
    """The histogram of colours of which that share is NEW and the rest grey."""
    count = round(1000 * share)
    return Palette.count(torch.cat([NEW.repeat(count, 1), torch.zeros(1000 - count, 2)]), 20.0)


def test_an_extended_palette_keeps_its_bins_in_their_places_and_adds_what_it_lacks() -> None:
    old = small_palette()
    new = old.extended(further())
    assert torch.equal(new.bins_k2[: len(old)], old.bins_k2)
    assert new.bins_k2[len(old) :].tolist() == [NEW.tolist()]
    index_b4hw, weight_b4hw = new.encode(NEW.view(1, 2, 1, 1))
    assert new.bins_k2[index_b4hw.flatten()[weight_b4hw.flatten() > 0.5]].tolist() == [NEW.tolist()]


def test_colours_that_are_there_already_or_rarer_than_the_threshold_add_nothing() -> None:
    old = small_palette()
    assert len(old.extended(further(0.0))) == len(old)
    assert len(old.extended(further(0.001), smallest_share=0.01)) == len(old)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_prior_is_a_mixture(weight: float) -> None:
    old = small_palette()
    new = old.extended(further(), weight=weight)
    grey = int((old.bins_k2 == 0).all(1).nonzero())
    assert new.prior_k.sum().item() == pytest.approx(1, abs=1e-6)
    assert new.prior_k[len(old)].item() == pytest.approx(weight * 0.3, abs=1e-6)
    assert new.prior_k[grey].item() == pytest.approx((1 - weight) * old.prior_k[grey].item() + weight * 0.7, abs=1e-6)
    other = torch.arange(len(old)) != grey
    torch.testing.assert_close(new.prior_k[: len(old)][other], (1 - weight) * old.prior_k[other])


@pytest.mark.parametrize("model", [small_model(), ColorModel.load(resolve("photo"))], ids=["unet", "photonet"])
def test_the_old_logits_mean_what_they_meant(model: ColorModel) -> None:
    side = int(128 // model.palette.step)
    colors_n2 = torch.cartesian_prod(*[torch.arange(-side, side + 1) * model.palette.step] * 2)
    palette = model.palette.extended(Palette.count(colors_n2, model.palette.step))
    old, new = len(model.palette), len(palette)
    assert new > old
    network = extended(model, palette).eval()
    L_b1hw = 100 * torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before_bkhw, after_bkhw = model.network(L_b1hw), network(L_b1hw)
    torch.testing.assert_close(after_bkhw[:, :old], before_bkhw)
    nearest_n = torch.cdist(palette.bins_k2[old:], model.palette.bins_k2).argmin(1)
    assert (after_bkhw[:, old:] <= after_bkhw[:, nearest_n] + 1e-4).all(), "no new colour is likelier than its neighbour"
    rarer_n = (palette.prior_k[old:] / palette.prior_k[nearest_n]).log().clamp_max(0)
    torch.testing.assert_close(after_bkhw[:, old:], before_bkhw[:, nearest_n] + rarer_n.view(1, -1, 1, 1), atol=1e-4, rtol=1e-4)
    assert model.network.config.bins == old, "the model itself stays"


def test_a_tuning_step_keeps_the_statistics_and_moves_the_weights() -> None:
    model = small_model()
    palette = model.palette.extended(further())
    config = TrainConfig(data="x", base="small", workers=1, batch_size=4, size=16, width=8, depth=1, palette_step=20.0)
    learner = Learner(config, palette, torch.device("cpu"), 10, model)
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    learner.step = 1  # at step 0 the warm-up's rate is 0
    loss = learner.learn(100 * torch.rand(4, 1, 16, 16, generator=generator), 40 * torch.randn(4, 2, 16, 16, generator=generator))
    torch.set_flush_denormal(False)  # a learner turns it on for its thread
    assert loss.isfinite()
    after = learner.network.state_dict()
    statistics = [name for name in before if "running_" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert not torch.equal(before["head.weight"], after["head.weight"])
    tuned = learner.as_model({"data": "x"})
    assert tuned.card.working_size == model.card.working_size
    assert len(tuned.palette) == len(model.palette) + 1


def test_frozen_statistics_are_those_that_inference_uses() -> None:
    network = small_model().network.train()
    freeze_statistics(network)
    assert network.training
    assert not any(module.training for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_the_settings_follow_from_the_model_and_the_pictures(tmp_path: Path) -> None:
    config = settings("photo", "folder:x", workers=2, pictures=100)
    card = read_card(resolve("photo"))
    assert config.encoder == card.network["encoder"]
    assert (config.size, config.base, config.batch_size, config.epochs) == (160, "photo", BATCH, MOST_EPOCHS)
    assert settings("photo", "folder:x", workers=2, pictures=SHOWN).epochs == FEWEST_EPOCHS
    assert settings("photo", "folder:x", workers=2, pictures=480).epochs == 10
    few = settings("photo", "folder:x", workers=2, pictures=13)
    assert (few.workers, few.batch_size) == (2, 12)
    assert settings("photo", "folder:x", workers=4, pictures=3).workers == 3
    assert settings("photo", "folder:x", workers=1, epochs=7, pictures=13).epochs == 7
    enlarged = settings("cifar10", "cifar10-sample", workers=1)
    assert (enlarged.encoder, enlarged.enlarge, enlarged.size) == ("efficientnet-lite0", 4, 32)
    model = small_model()
    model.save(tmp_path / "unet.safetensors")
    unet = settings(str(tmp_path / "unet.safetensors"), "cifar10-sample", workers=1)
    assert (unet.encoder, unet.width, unet.depth) == (None, model.card.network["width"], model.card.network["depth"])
    with pytest.raises(ConfigError, match="workers 0"):
        settings("photo", "folder:x", workers=0)
    with pytest.raises(ModelError, match="no such model"):
        settings("none", "folder:x", workers=1)


def test_a_run_that_was_killed_as_it_began_is_given_its_model(tmp_path: Path) -> None:
    small_model().save(tmp_path / "mine.safetensors")
    run = RunDirectory(tmp_path / "run")
    run.create(settings(str(tmp_path / "mine.safetensors"), "folder:x", workers=1))
    (tmp_path / "mine.safetensors").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=rf"^{run}: has no base.safetensors yet, and cannot get it \(.*mine.safetensors: no such model;"):
        open_finetuning(run)
    (tmp_path / "moved").rename(tmp_path / "mine.safetensors")
    open_finetuning(run)
    assert read_card(tmp_path / "run/base.safetensors").name == "small"
    (tmp_path / "run/base.safetensors").unlink()
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / TENSORS).write_bytes(b"")
    (staged / COUNTERS).write_text('{"epoch": 1, "history": []}')
    seal(staged)
    publish(staged, run.place, "checkpoint_000001_x")
    with pytest.raises(RunError, match=r"run/base.safetensors: is missing: bring it back"):
        open_finetuning(run)


def test_a_run_that_was_killed_before_it_began_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = RunDirectory(tmp_path / "runs" / "one"), TrainConfig(data="folder:x")
    monkeypatch.setattr(LocalPlace, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.create(config)
    monkeypatch.undo()
    assert list((tmp_path / "runs").iterdir()) == []
    run.create(config)
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["one", "config.json"]
    with pytest.raises(RunError, match="not a fine-tuning run: go on with colorize train --resume"):
        open_finetuning(run)


@pytest.mark.parametrize(
    "text", ["", "7", '"colored"', "[1]", "{}", '{"looked_at": "x", "colored": [], "made": 0, "unreadable": []}', "[" * 9999]
)
def test_what_was_found_is_damaged(text: str) -> None:
    with pytest.raises(RunError, match=r"^run/pictures.json: not what was found in an archive \("):
        Survey.from_json(text.encode(), "run/pictures.json")


def test_an_empty_name_of_a_run_is_no_name() -> None:
    for run, resume, option in (("", None, "--run"), (None, "", "--resume")):
        with pytest.raises(ConfigError, match=rf"^{option}: is empty: name a run's directory"):
            directory_of(run, resume)


def interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_holds_the_model_that_it_starts_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_model().save(tmp_path / "mine.safetensors")
    config = settings(str(tmp_path / "mine.safetensors"), "folder:x", workers=1)
    run = RunDirectory(tmp_path / "run")
    create_finetuning(run, config)
    (tmp_path / "mine.safetensors").unlink()
    assert open_finetuning(run) == config
    assert read_card(tmp_path / "run/base.safetensors").name == "small"
    with pytest.raises(RunError, match="not a fine-tuning run"):
        open_finetuning(RunDirectory(tmp_path))
    scores = {"psnr_mean": 20.0, "colorfulness_ratio": float("nan")}
    compared = Comparison(
        base="mine", base_sha256="0", data="folder:x", pictures={"held_out": 9}, bins={},
        grey=scores, before=scores, after=scores | {"psnr_mean": 19.5},
    )  # fmt: skip
    assert (compared.gain, compared.is_better) == (-0.5, False)
    compared.write(run)
    told = (tmp_path / "run/finetune.json").read_text()
    assert '"better": false' in told
    assert '"colorfulness_ratio": null' in told
    with pytest.raises(RunError, match="this run is finished"):
        open_finetuning(run)
    with pytest.raises(typer.Exit) as ended:
        conclude(compared)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "colorize: not better: -0.50 dB PSNR on 9 held-out pictures: stay with mine, or try more pictures\n"
    conclude(dataclasses.replace(compared, after=scores | {"psnr_mean": 21.0}))
    assert capsys.readouterr().out == "better: +1.00 dB PSNR on 9 held-out pictures\n"


def test_a_draw_is_by_the_pixels_and_by_its_purpose() -> None:
    rgb_b3hw = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8)
    whole = digests(rgb_b3hw, "held out")
    assert len(set(whole)) == 4
    assert whole[::-1] == digests(rgb_b3hw[::-1], "held out"), "order and memory layout do not matter"
    assert set(whole).isdisjoint(digests(rgb_b3hw, "choice"))
    rgb_b3hw[0, 0, 0, 0] ^= 1
    assert [one == other for one, other in zip(whole, digests(rgb_b3hw, "held out"), strict=True)] == [False, True, True, True]
