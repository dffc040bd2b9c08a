"""The `photo` model: the network for photographs, its encoder from ImageNet weights, on one machine without Ray.

    python -m jobs.recipes.photo --data parquet:photos128 --data parquet:photos128 --data parquet:photos64 --run runs/photo

A source that is named twice is seen twice as often. Pictures lie in memory as 8-bit RGB, 49 KB each at 128×128: as the float16 LAB rows of a
Ray dataset they are nine bytes a pixel instead of three. The steps are the `Learner`'s, as in `colorize train`.
`--resume` goes on from the last checkpoint. `--minutes` squeezes the schedule so that it ends by then, however busy the machine is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from colorize.data import photos
from colorize.data.sources import parse_source
from colorize.imaging.colorspace import compose, rgb_to_lab
from colorize.imaging.tint import is_grey
from colorize.model.calibrate import calibrate
from colorize.model.metrics import colorfulness
from colorize.model.palette import Palette
from colorize.train.checkpoint import load_state, save_state
from colorize.train.config import TrainConfig
from colorize.train.learner import Learner
from colorize.train.run import _commit, _processor

PICTURES_A_CHUNK = 256
SAMPLED = 400
"""Validation pictures that are scored at each checkpoint; all of them in the end."""


def pictures(spec: str, split: str, side: int) -> Tensor:
    """RGB uint8 (n, 3, side, side) of a Parquet source; grey pictures are left out of training."""
    source = parse_source(spec)
    assert source.kind == "parquet" and source.path is not None, f"{spec}: this recipe reads Parquet"
    place = photos.find_files(spec, source.path)
    parts = photos.parquet_rows(place, "train" if split == "train" else "test", None).parts

    def read(part: photos.ParquetPart) -> Tensor:
        rgb_b3hw = torch.from_numpy(photos.read_squares(photos.open_parquet_part(place, part, labels=False), side)[0])
        if split == "train":
            rgb_b3hw = rgb_b3hw[~torch.cat([is_grey(rgb_to_lab(some)) for some in rgb_b3hw.split(PICTURES_A_CHUNK)])]
        return rgb_b3hw

    with ThreadPoolExecutor(2) as pool:
        return torch.cat(list(pool.map(read, parts)))


def palette_of(rgb_n3hw: Tensor, step: float, stride: int) -> Palette:
    """The palette of the training pictures at the network's output resolution; every fourth picture will do."""
    total = torch.zeros((), dtype=torch.float64)
    for some in rgb_n3hw[::4].split(PICTURES_A_CHUNK):
        ab_b2hw = F.avg_pool2d(rgb_to_lab(some)[:, 1:], stride)
        total = total + Palette.count(ab_b2hw.movedim(1, -1).reshape(-1, 2), step)
    return Palette.from_histogram(total, step)


def scores_of(learner: Learner, rgb_n3hw: Tensor) -> dict[str, float]:
    """PSNR of the averaged network's plain expectation, its gain over grey, and colourfulness as a share of the truth's."""
    psnrs, colors = [], []
    with torch.inference_mode():
        for rgb_b3hw in rgb_n3hw.split(PICTURES_A_CHUNK // 4):
            L_b1hw, ab_b2hw = rgb_to_lab(rgb_b3hw).split([1, 2], 1)
            shown = [compose(L_b1hw, guess_b2hw) for guess_b2hw in (learner.predict(L_b1hw), torch.zeros_like(ab_b2hw))]
            mse = [(guess_b3hw.float() - rgb_b3hw.float()).div(255).square().flatten(1).mean(1) for guess_b3hw in shown]
            psnrs.append(torch.stack([-10 * mse_b.clamp_min(1e-10).log10() for mse_b in mse], 1))
            colors.append(torch.stack([colorfulness(shown[0]), colorfulness(rgb_b3hw)], 1))
    psnr, grey = torch.cat(psnrs).mean(0).tolist()
    own, true = torch.cat(colors).sum(0).tolist()
    return {"psnr": psnr, "psnr_gain": psnr - grey, "colorfulness_ratio": own / true}


def batches(count: int, batch: int, seed: int, first: int) -> Iterator[Tensor]:
    """Indices of batch after batch, epoch after epoch, from step `first` on."""
    a_pass = count // batch
    for step in range(first, 1 << 40):
        if step == first or step % a_pass == 0:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + step // a_pass))
        yield order[step % a_pass * batch :][:batch]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker is given."""

    config: TrainConfig
    run: Path
    rgb_n3hw: Tensor
    """All training pictures, in shared memory."""
    place_n: Tensor
    """Which of them a pass sees, in order of source."""
    held_n3hw: Tensor
    palette: tuple[Tensor, Tensor]
    steps: int
    ends: float | None
    """When the schedule must have ended, in seconds since 1970."""
    checkpoint_minutes: float
    resume: bool
    port: int


def main(
    data: Annotated[list[str], typer.Option()],
    run: Annotated[Path, typer.Option()],
    steps: Annotated[int, typer.Option()] = 3000,
    minutes: Annotated[float | None, typer.Option()] = None,
    workers: Annotated[int, typer.Option()] = 2,
    batch_size: Annotated[int, typer.Option()] = 32,
    size: Annotated[int, typer.Option()] = 128,
    learning_rate: Annotated[float, typer.Option()] = 1.5e-3,
    encoder: Annotated[str, typer.Option()] = "efficientnet-lite0",
    checkpoint_minutes: Annotated[float, typer.Option()] = 6.0,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option("--resume")] = False,
) -> None:
    """Trains the photo model."""
    ends = None if minutes is None else time.time() + 60 * minutes
    run.mkdir(parents=True, exist_ok=resume)
    loaded = {spec: pictures(spec, "train", size) for spec in dict.fromkeys(data)}
    rgb_n3hw = torch.cat(list(loaded.values())).share_memory_()
    starts = dict(zip(loaded, np.cumsum([0, *map(len, loaded.values())]), strict=False))
    place_n = torch.cat([torch.arange(len(loaded[spec])) + int(starts[spec]) for spec in data]).share_memory_()
    held_n3hw = pictures(data[0], "test", size).share_memory_()
    config = TrainConfig(
        data="+".join(data), workers=workers, batch_size=batch_size, size=size, learning_rate=learning_rate, encoder=encoder, seed=seed,
        epochs=math.ceil(steps * batch_size / len(place_n)), precision="fp32",
    )  # fmt: skip
    config.write(run / "config.json")
    palette = palette_of(rgb_n3hw, config.palette_step, config.network(bins=2).output_stride)
    print({spec: len(loaded[spec]) for spec in loaded}, f"{len(held_n3hw)} to validate, {len(palette)} colours", flush=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = Job(
        config=config, run=run, rgb_n3hw=rgb_n3hw, place_n=place_n, held_n3hw=held_n3hw, palette=(palette.bins_k2, palette.prior_k),
        steps=steps, ends=ends, checkpoint_minutes=checkpoint_minutes, resume=resume, port=port,
    )  # fmt: skip
    # A thread a process: on busy cores the threads of one process wait for each other at every layer, 3.5 s a step instead of 0.9.
    torch.multiprocessing.spawn(work, (job,), nprocs=workers)


def work(rank: int, job: Job) -> None:
    """One worker's training; the first one scores and keeps."""
    torch.set_num_threads(1)
    config, began = job.config, time.time()
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{job.port}", rank=rank, world_size=config.workers)
    palette = Palette(*job.palette, config.palette_step)
    learner = Learner(config, palette, torch.device("cpu"), job.steps)
    history: list[dict[str, float]] = []
    if job.resume:
        counters = load_state(job.run, learner)
        history, learner.step = counters["history"], counters["step"]
    learner.wrapped = DistributedDataParallel(
        learner.network, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=False
    )
    torch.manual_seed(config.seed + learner.step + 1_000_000 * rank)
    before, first, saved = (history[-1]["seconds"] if history else 0.0), learner.step, began
    facts = {
        "data": config.data, "pictures": len(job.rgb_n3hw), "validation_pictures": len(job.held_n3hw), "config": dataclasses.asdict(config),
        "hardware": f"{config.workers} CPUs ({_processor()})", "commit": _commit(),
        "versions": {name: version(name) for name in ("colorize", "torch")},
    }  # fmt: skip
    losses: list[float] = []
    for chosen_b in batches(len(job.place_n), config.batch_size, config.seed, first):
        if job.ends is not None:
            # The share of the schedule that is done is the share of the time.
            share = min(1.0, (before + time.time() - began) / (before + job.ends - began))
            steps = max(learner.step + 1, round((learner.step + 1) / max(share, 1e-3))) if share < 1 else learner.step
            planned = torch.tensor(steps)
            torch.distributed.broadcast(planned, src=0)
            learner.steps = int(planned)
        if learner.step >= learner.steps:
            break
        own_b = chosen_b[rank * config.worker_batch :][: config.worker_batch]
        L_b1hw, ab_b2hw = rgb_to_lab(job.rgb_n3hw[job.place_n[own_b]]).split([1, 2], 1)
        losses.append(float(learner.learn(L_b1hw, ab_b2hw)))
        if rank:
            continue
        seconds = before + time.time() - began
        if learner.step % 20 == 0:
            pace = (time.time() - began) / (learner.step - first)
            print(f"step {learner.step}/{learner.steps} loss {np.mean(losses[-50:]):.3f} {pace:.2f} s a step", flush=True)
        if time.time() - saved > 60 * job.checkpoint_minutes:
            _keep(job.run, learner, history, seconds, losses, scores_of(learner, job.held_n3hw[:SAMPLED]), facts)
            saved = time.time()
    if rank == 0:
        seconds = before + time.time() - began
        _keep(job.run, learner, history, seconds, losses, scores_of(learner, job.held_n3hw), facts)
        model = learner.as_model(facts | {"steps": learner.step, "seconds": round(seconds)})
        L_b1hw, ab_b2hw = rgb_to_lab(job.held_n3hw).split([1, 2], 1)
        dial = calibrate(model.network, model.palette, L_b1hw, ab_b2hw)
        card = dataclasses.replace(model.card, name=job.run.name, dial=dataclasses.asdict(dial))
        dataclasses.replace(model, card=card).save(job.run / "model.safetensors")
        print(f"{job.run}/model.safetensors {dial}", flush=True)


def _keep(
    run: Path, learner: Learner, history: list[dict[str, float]], seconds: float, losses: list[float], scores: dict[str, float],
    facts: dict[str, object],
) -> None:  # fmt: skip
    """A checkpoint from which the run can go on, and the model so far; a new one replaces the last when it is whole."""
    history.append({"step": learner.step, "seconds": round(seconds), "loss": float(np.mean(losses[-200:])), **scores})
    fresh = run / "next"
    fresh.mkdir(exist_ok=True)
    save_state(fresh, learner, {"epoch": 0, "step": learner.step, "history": history})
    learner.as_model(facts | {"steps": learner.step}).save(fresh / "latest.safetensors")
    for file in fresh.iterdir():
        file.replace(run / file.name)
    (run / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    print(json.dumps(history[-1]), flush=True)


if __name__ == "__main__":
    typer.run(main)
