"""The `photo` model: the network for photographs, its encoder from ImageNet weights, on the cores of one machine, without Ray.

    python -m jobs.recipes.photo --data photos128 --data photos128 --data photos64 --run runs/photo

Each `--data` is a folder of Parquet files as `colorize train --data parquet:FOLDER` takes it; one that is named twice is seen twice as
often, the first is validated on. `--resume` goes on from the last checkpoint, `--start` begins a new run with the weights of a model.
`--minutes` squeezes the schedule so that it ends by then, however busy the machine is. The steps are the `Learner`'s, as in
`colorize train --encoder efficientnet-lite2`, but the pictures lie in memory as 8-bit RGB, three bytes a pixel instead of the nine of a
LAB row, shared by all workers: 33,000 of them in 1.6 GB.

Expected on two cores of an AMD EPYC with AVX-512 BF16, on the 1,000 validation photographs at vividness 0:

    --run runs/first --steps 7400 --minutes 92
        6,600 steps, PSNR 25.12 dB
    --run runs/photo --start runs/first/model.safetensors --size 160 --learning-rate 0.001 --seed 1 --steps 6000 --minutes 95
        3,300 steps more, PSNR 25.18 dB, SSIM 0.956, ab MAE 7.9

The second goes on from the model of the first on larger pictures; beside other work, without which it takes more steps in that time. What
ships is its model, but for two numbers of its dial that were set by hand: the stiffness, 60, which `calibrate` does not try, and the lift,
0.523, by which all validation pictures together are as colourful as the truth at 128 pixels. And the first run had fewer and narrower
borders of paper (`degrade`: a share of 0.15, up to 15 % of a side) than the second and the code now, so its command gives another model
today than the one whose score is told.

A process with one thread a core: the threads of one process wait for each other at every layer, and on cores that others use too a
step then took 3.5 s instead of 0.9.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from colorize.data.cifar10 import Split
from colorize.data.files import find_files
from colorize.data.parquet import ParquetPart, open_parquet_part, parquet_rows
from colorize.data.photos import read_squares
from colorize.data.sources import check_apart
from colorize.evaluation import BASELINES, predict_full_size
from colorize.imaging.colorspace import compose, rgb_to_lab
from colorize.imaging.tint import is_grey
from colorize.model.calibrate import calibrate
from colorize.model.card import read_card
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import ColorScores, colorfulness, psnr
from colorize.model.palette import Palette
from colorize.model.settings import DecodeSettings
from colorize.train.checkpoint import load_state, save_state
from colorize.train.config import TrainConfig
from colorize.train.learner import Learner
from colorize.train.run import commit, processor

CHUNK = 100
"""Pictures that are converted or scored at a time."""

SAMPLED = 400
"""Validation pictures that are scored at each checkpoint; all of them in the end."""

STARTS_SHARE = 0.3
"""The share of the weights that a run began with, where it began with a model's, in those of its own. Wortsman et al. 2022 ("Robust
fine-tuning of zero-shot models") average so; on the validation pictures shares of 0, 0.3, 0.5 and 1 gain 1.90, 1.92, 1.91 and 1.84 dB."""

REPORTED = 20
"""Steps from one line to the next."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker is given; the tensors lie in shared memory."""

    config: TrainConfig
    run: Path
    rgb_n3hw: Tensor
    """All training pictures, uint8."""
    place_n: Tensor
    """Which of them one pass sees."""
    held_n3hw: Tensor
    """The validation pictures."""
    palette: tuple[Tensor, Tensor]
    """Bins and prior."""
    steps: int
    ends: float | None
    """When the schedule must have ended, in seconds since 1970."""
    checkpoint_minutes: float
    resume: bool
    port: int
    shown_n3hw: Tensor
    """The same at the size at which the model will show pictures to its network."""
    start: Path | None
    """A model file whose weights are the first ones."""


def main(
    data: Annotated[list[Path], typer.Option(help="A folder of Parquet files of photographs; again for more.")],
    run: Annotated[Path, typer.Option(help="The run's directory.")],
    steps: Annotated[int, typer.Option(help="Steps of the whole run.")] = 3000,
    minutes: Annotated[float | None, typer.Option(help="End by then, with fewer steps if need be.")] = None,
    workers: Annotated[int, typer.Option(help="Processes, one core each.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Pictures of a step, all workers together.")] = 32,
    size: Annotated[int, typer.Option(help="The side of the pictures.")] = 128,
    working_size: Annotated[int, typer.Option(help="The short side at which the model will show pictures to its network.")] = 160,
    learning_rate: Annotated[float, typer.Option(help="The peak, of the decoder; the encoder's is a fifth.")] = 1.5e-3,
    encoder: Annotated[str, typer.Option(help="Which encoder.")] = "efficientnet-lite2",
    checkpoint_minutes: Annotated[float, typer.Option(help="From one checkpoint to the next.")] = 7.0,
    seed: Annotated[int, typer.Option(help="Seeds weights, order and damage.")] = 0,
    start: Annotated[Path | None, typer.Option(help="A model file to go on from, with a schedule of its own; else the encoder's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False,
) -> None:
    """Trains the photo model."""
    ends = None if minutes is None else time.time() + 60 * minutes
    check_apart([f"parquet:{folder}" for folder in data])
    run.mkdir(parents=True, exist_ok=resume)
    sources = list(dict.fromkeys(data))
    loaded = [pictures(folder, "train", size) for folder in sources]
    rgb_n3hw, counts = torch.cat(loaded).share_memory_(), [len(of) for of in loaded]
    del loaded
    place_n = torch.cat([torch.arange(counts[at]) + sum(counts[:at]) for at in map(sources.index, data)]).share_memory_()
    config = TrainConfig(
        data=f"parquet:{data[0].name}", more_data=tuple(f"parquet:{folder.name}" for folder in data[1:]), workers=workers,
        batch_size=batch_size, size=size, learning_rate=learning_rate, encoder=encoder, seed=seed,
        epochs=math.ceil(steps * batch_size / len(place_n)),
    )  # fmt: skip
    (run / "config.json").write_text(config.to_json())
    palette = palette_of(rgb_n3hw, config) if start is None else ColorModel.load(start).palette
    held_n3hw = pictures(data[0], "test", size).share_memory_()
    print(f"{sum(counts)} pictures ({counts}), {len(held_n3hw)} to validate, {len(palette)} colours", flush=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = Job(
        config=config, run=run, rgb_n3hw=rgb_n3hw, place_n=place_n, held_n3hw=held_n3hw, palette=(palette.bins_k2, palette.prior_k),
        steps=steps, ends=ends, checkpoint_minutes=checkpoint_minutes, resume=resume, port=port,
        shown_n3hw=pictures(data[0], "test", working_size).share_memory_(), start=start,
    )  # fmt: skip
    spawn(work, (job,), nprocs=workers)


def pictures(folder: Path, split: Split, side: int) -> Tensor:
    """RGB uint8 (n, 3, side, side); grey pictures are left out of training, and those that cannot be read, which are told."""
    bad: dict[str, str] = {}
    place = find_files(f"parquet:{folder}", str(folder))

    def read(part: ParquetPart) -> Tensor:
        squares, _, _, unreadable = read_squares(open_parquet_part(place, part, labels=False), side)
        bad.update(unreadable)
        rgb_b3hw = torch.from_numpy(squares)
        if split == "train" and len(rgb_b3hw):
            rgb_b3hw = rgb_b3hw[~torch.cat([is_grey(rgb_to_lab(some)) for some in rgb_b3hw.split(CHUNK)])]
        return rgb_b3hw

    with ThreadPoolExecutor(2) as pool:
        read_n3hw = torch.cat(list(pool.map(read, parquet_rows(place, split, None).parts)))
    if bad:
        print(f"{folder}: {len(bad)} unreadable pictures left out (the first: {': '.join(min(bad.items()))})", flush=True)
    return read_n3hw


def palette_of(rgb_n3hw: Tensor, config: TrainConfig) -> Palette:
    """The palette of the training pictures at the network's output resolution; every fourth picture will do."""
    histogram = torch.zeros((), dtype=torch.float64)
    for some in rgb_n3hw[::4].split(CHUNK):
        ab_b2hw = F.avg_pool2d(rgb_to_lab(some)[:, 1:], config.network(bins=2).output_stride)
        histogram = histogram + Palette.count(ab_b2hw.movedim(1, -1).reshape(-1, 2), config.palette_step)
    return Palette.from_histogram(histogram, config.palette_step)


def work(rank: int, job: Job) -> None:
    """One worker's training; the first one scores and keeps."""
    torch.set_num_threads(1)
    config, began = job.config, time.time()
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{job.port}", rank=rank, world_size=config.workers)
    learner = Learner(config, Palette(*job.palette, config.palette_step), torch.device("cpu"), job.steps)
    history: list[dict[str, float]] = []
    if job.resume and (kept := checkpoints(job.run)):
        counters = load_state(kept[-1], learner)
        history, learner.step = counters["history"], int(counters["step"])
    elif job.start is not None:
        for network in (learner.network, learner.averaged.module):
            network.load_state_dict(ColorModel.load(job.start).network.state_dict())
    learner.wrapped = DistributedDataParallel(learner.network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    torch.manual_seed(config.seed + learner.step + 1_000_000 * rank)
    before, first, saved = (history[-1]["seconds"] if history else 0.0), learner.step, began
    losses: list[float] = []
    for chosen_b in batches(len(job.place_n), config, first):
        seconds = before + time.time() - began
        if job.ends is not None:
            # The share of the steps that is done is the share of the time; the first worker's clock counts.
            share = seconds / (before + job.ends - began)
            planned = torch.tensor(round((learner.step + 1) / max(share, 1e-3)) if share < 1 else learner.step)
            torch.distributed.broadcast(planned, src=0)
            learner.steps = int(planned)
        if learner.step >= learner.steps:
            break
        own_b = job.place_n[chosen_b[rank * config.worker_batch :][: config.worker_batch]]
        losses.append(float(learner.learn(*lab_of(job.rgb_n3hw[own_b]))))
        if rank == 0 and learner.step % REPORTED == 0:
            pace, loss = (time.time() - began) / (learner.step - first), sum(losses[-REPORTED:]) / len(losses[-REPORTED:])
            print(f"step {learner.step}/{learner.steps}  loss {loss:.3f}  {pace:.2f} s a step", flush=True)
        if rank == 0 and time.time() - saved > 60 * job.checkpoint_minutes:
            scores = quick_scores(learner, job.held_n3hw[:SAMPLED])
            history.append({"step": learner.step, "seconds": round(seconds), "loss": sum(losses) / len(losses), **scores})
            keep(job.run, learner, history, facts_of(job, learner, seconds))
            saved, losses = time.time(), []
    if rank == 0:
        seconds = before + time.time() - began
        scores = quick_scores(learner, job.held_n3hw)
        history.append({"step": learner.step, "seconds": round(seconds), "loss": sum(losses) / max(1, len(losses)), **scores})
        facts = facts_of(job, learner, seconds)
        keep(job.run, learner, history, facts)
        finish(job, averaged_with_start(job, learner.as_model(facts)))


def batches(count: int, config: TrainConfig, first: int) -> Iterator[Tensor]:
    """Indices of batch after batch, pass after pass, from step `first` on: the same whatever was done before."""
    a_pass = count // config.batch_size
    order_n, of = torch.empty(0), -1
    for step in range(first, 1 << 40):
        if step // a_pass != of:
            of = step // a_pass
            order_n = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed + of))
        yield order_n[step % a_pass * config.batch_size :][: config.batch_size]


def lab_of(rgb_b3hw: Tensor) -> tuple[Tensor, Tensor]:
    """L (b, 1, h, w) and ab (b, 2, h, w)."""
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    return lab_b3hw[:, :1], lab_b3hw[:, 1:]


def quick_scores(learner: Learner, rgb_n3hw: Tensor) -> dict[str, float]:
    """Mean PSNR of the averaged network's plain expectation, its gain over grey, and colourfulness as a share of the truth's."""
    rows = []
    with torch.inference_mode():
        for rgb_b3hw in rgb_n3hw.split(CHUNK):
            L_b1hw, ab_b2hw = lab_of(rgb_b3hw)
            own_b3hw, grey_b3hw = (compose(L_b1hw, guess) for guess in (learner.predict(L_b1hw), torch.zeros_like(ab_b2hw)))
            scores = [psnr(shown_b3hw, rgb_b3hw) for shown_b3hw in (own_b3hw, grey_b3hw)]
            rows.append(torch.stack([*scores, colorfulness(own_b3hw), colorfulness(rgb_b3hw)], 1))
    psnr_mean, grey, colors, true = torch.cat(rows).mean(0).tolist()
    return {"psnr": psnr_mean, "psnr_gain": psnr_mean - grey, "colorfulness_ratio": colors / true}


def facts_of(job: Job, learner: Learner, seconds: float) -> dict[str, Any]:
    """What the card says of the training."""
    base = {} if job.start is None else {"base": read_card(job.start).as_base()}
    return base | {
        "data": " + ".join([job.config.data, *job.config.more_data]), "pictures": len(job.rgb_n3hw), "epochs": job.config.epochs,
        "best_epoch": job.config.epochs, "steps": learner.step, "validation_pictures": len(job.held_n3hw), "seconds": round(seconds),
        "config": dataclasses.asdict(job.config), "hardware": f"{job.config.workers} CPUs ({processor()}), 0 GPUs",
        "versions": {name: version(name) for name in ("colorize", "torch")}, "commit": commit(),
    }  # fmt: skip


def keep(run: Path, learner: Learner, history: list[dict[str, float]], facts: dict[str, Any]) -> None:
    """A checkpoint from which the run can go on, with the model so far; the one before goes when it is whole."""
    staged, before = run / "checkpoint.partial", checkpoints(run)
    shutil.rmtree(staged, ignore_errors=True)  # of a run that was killed at it
    staged.mkdir()
    save_state(staged, learner, {"epoch": 0, "step": learner.step, "history": history})
    learner.as_model(facts).save(staged / "latest.safetensors")
    staged.rename(run / f"checkpoint-{learner.step:06}-{len(history):04}")
    for one in before:
        shutil.rmtree(one)
    (run / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    print(json.dumps(history[-1]), flush=True)


def checkpoints(run: Path) -> list[Path]:
    """Those that are whole, oldest first: one, or two where the run was killed between."""
    return sorted(run.glob("checkpoint-*"))


def averaged_with_start(job: Job, model: ColorModel) -> ColorModel:
    """The model with STARTS_SHARE of the weights that the run began with."""
    if job.start is not None:
        began, ended = ColorModel.load(job.start).network.state_dict(), model.network.state_dict()
        whole = {name for name, value in ended.items() if not value.is_floating_point()}
        mean = {name: value if name in whole else torch.lerp(value, began[name], STARTS_SHARE) for name, value in ended.items()}
        model.network.load_state_dict(mean)
    return model


def finish(job: Job, model: ColorModel) -> None:
    """Finds the dial, scores the model at vividness 0 and leaves it in the run's directory."""
    dial = calibrate(model, *lab_of(job.shown_n3hw))
    card = dataclasses.replace(model.card, name=job.run.name, working_size=job.shown_n3hw.shape[-1], dial=dataclasses.asdict(dial))
    model = dataclasses.replace(model, card=card)
    print(dial, flush=True)
    told = {"data": job.config.data, "pictures": len(job.shown_n3hw)} | judged(model, job.shown_n3hw)
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, metrics=told))
    model.save(job.run / "model.safetensors")
    print(json.dumps(told["metrics"], indent=1), flush=True)


def judged(model: ColorModel, rgb_n3hw: Tensor) -> dict[str, Any]:
    """`metrics` and `baselines` of a card: what `colorize evaluate` gives on these pictures."""
    # Of this process alone: by default a metric asks all workers of the group, and the others have gone.
    scores = {name: ColorScores(sync_on_compute=False) for name in ("metrics", *BASELINES)}
    colorizer = Colorizer(model, device="cpu", precision="fp32")
    for rgb_b3hw in rgb_n3hw.split(CHUNK):
        L_b1hw, ab_b2hw = lab_of(rgb_b3hw)
        guesses = {
            "metrics": predict_full_size(colorizer, L_b1hw, DecodeSettings()),
            "grey": torch.zeros_like(ab_b2hw),
            "mean_color": model.palette.mean_ab_2.view(1, 2, 1, 1).expand_as(ab_b2hw),
        }
        for name, guess_b2hw in guesses.items():
            scores[name].update(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    return {"metrics": scores["metrics"].compute(), "baselines": {name: scores[name].compute() for name in BASELINES}}


if __name__ == "__main__":
    typer.run(main)
