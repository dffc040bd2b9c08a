"""docs/scaling.md: what was measured, what follows from it for 10 and 100 GPUs and a billion pictures, and what it costs."""

from __future__ import annotations

from colorize.archive.painter import GROUP_PICTURES
from colorize.model.card import DEFAULT_MODEL, read_card, resolve
from jobs.scaling import (
    ASSUMED,
    BILLION,
    GETS_A_PICTURE,
    GPUS,
    LISTED,
    PUTS_A_PICTURE,
    Cluster,
    Measured,
    dollars_a_million,
    limits,
    recorded,
    simulate,
)  # fmt: skip

CLUSTERS = (
    *(Cluster(name=f"{count} GPUs (g5.2xlarge)", nodes=count, has_gpus=True) for count in GPUS),
    *(Cluster(name=f"{count} CPU nodes (c7i.4xlarge)", nodes=count, has_gpus=False) for count in GPUS),
)
SPLIT = 10_000_000
"""Pictures of one run, of a billion."""


def page() -> str:
    """The whole page, from jobs/scaling.json."""
    measured = recorded()
    rates = {cluster.name: simulate(measured, cluster) for cluster in CLUSTERS}
    return f"""# Scaling

```sh
python -m jobs.benchmark scale --json scale.json
python -m jobs.docs
```

The first measures training and the bulk job on one node and on two ([results.md](results.md#more-nodes)). The second makes this page: it
plays a bulk run through on more machines than there were to measure on, event by event, from what one core was measured to take
(`jobs/scaling.json`) and from the assumptions below. `python -m jobs.benchmarks.stages scans` measures anew.

**Every figure is measured, computed or assumed, and says which.** No GPU and no cloud was measured.

## What a picture takes

Measured on {measured.hardware}, {measured.pictures} scans of {measured.megapixels:.2f} megapixels on average, model `photo`; listing and
the driver's part on {LISTED:,} files on a local disk. All are processor time: waiting for disks is not in it.

| stage | where | time of one core, measured | pictures a second and core |
| --- | --- | --- | --- |
{_stages(measured)}

Bytes a picture, measured: {measured.source_bytes / 1e3:,.0f} KB are read, {measured.target_bytes / 1e3:,.0f} KB written; a row is
{measured.row_bytes:,.0f} bytes of the driver's memory and {measured.manifest_bytes:,.0f} of the manifest. Requests to a bucket, counted
in the code: {GETS_A_PICTURE:.2f} GET or HEAD and {PUTS_A_PICTURE:.2f} PUT, COPY or DELETE, since outputs are committed in groups of
{GROUP_PICTURES}. The network takes {measured.predict_flops / 1e9:.1f} GFLOP a picture, counted by torch.

## What follows

Computed by the simulation (2 hours, the first half hour left out, spot nodes taken away on the way); the limits are what each part could
do by itself.

| cluster | pictures/s, computed | a billion pictures, computed | what limits it first | the next limit |
| --- | --- | --- | --- | --- |
{_rates(measured, rates)}

| part | {" | ".join(cluster.name for cluster in CLUSTERS)} |
| --- | {" | ".join("---" for _ in CLUSTERS)} |
{_limits(measured)}

All in pictures a second, computed. So:

{_bottlenecks(measured)}
- **A GPU waits for its CPUs.** An A10G would predict {_idle(measured):.0f} times as many pictures as the eight vCPUs beside it can read,
  decode, graft and write. A bulk run scales on CPUs; GPUs are worth their price for training.
- **A bucket's limit is that of one prefix.** Sources and targets that are spread over several prefixes, a run for each, have it each.
- **One driver holds a row of each picture**: {measured.row_bytes * BILLION / 1e9:,.0f} GB for a billion, computed, where the head has
  {ASSUMED["driver_memory"].value / 1e9:.0f}. So a billion pictures are {BILLION // SPLIT} runs of {SPLIT // 1_000_000} million, a folder or
  prefix each ({measured.row_bytes * SPLIT / 1e9:.1f} GB, listed in {measured.listed * SPLIT / 60:.0f} minutes), one after another or side
  by side. By its time alone the driver could take {limits(measured, CLUSTERS[0])["driver"]:,.0f} pictures a second.

## What it costs

For a million pictures, computed, on spot; the second sum is what the bucket asks for its requests, whatever the machines.

| cluster | machines | requests | together |
| --- | --- | --- | --- |
{_costs(rates)}

Storage is not in it: {measured.target_bytes * 1e6 / 1e9:,.0f} GB a million for the outputs.

## Training

A step's pictures are shared out among the workers, and stay 64 in all whatever their number, so that the result stays the same. So training
scales to a few workers by itself; beyond them, give each its 64 by `--batch-size`, with a learning rate to be found anew (not measured).
Computed for `photo`'s {_gradient_bytes() / 1e6:.0f} MB of gradients on a network of
{ASSUMED["network"].value * 8 / 1e9:.0f} Gbit/s: the ring of an all-reduce takes
{_allreduce(2):.0f} ms a step on 2 workers, {_allreduce(10):.0f} on 10 and {_allreduce(100):.0f} on 100, if nothing else is on it.

## Assumed

| what | value | from |
| --- | --- | --- |
{_assumed()}
"""


def _stages(measured: Measured) -> str:
    stages = {
        "list and plan": ("driver", measured.listed), "read": ("worker", measured.read), "decode, shrink": ("worker", measured.decode),
        "predict": ("worker, or GPU", measured.predict), "graft, encode": ("worker", measured.encode), "write": ("worker", measured.write),
        "row and manifest": ("driver", measured.driver),
    }  # fmt: skip
    return "\n".join(f"| {name} | {where} | {_time(seconds)} | {1 / seconds:,.0f} |" for name, (where, seconds) in stages.items())


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def _rates(measured: Measured, rates: dict[str, float]) -> str:
    lines = []
    for cluster in CLUSTERS:
        first, second, *_ = sorted(limits(measured, cluster).items(), key=lambda item: item[1])
        rate = rates[cluster.name]
        days = BILLION / rate / 86_400
        lines.append(f"| {cluster.name} | {rate:,.0f} | {days:,.0f} days | {first[0]} | {second[0]} |")
    return "\n".join(lines)


def _bottlenecks(measured: Measured) -> str:
    lines = []
    for cluster in CLUSTERS:
        name, rate = min(limits(measured, cluster).items(), key=lambda item: item[1])
        lines.append(f"- **{cluster.name}: the first bottleneck is the {name}**, {rate:,.0f} pictures a second.")
    return "\n".join(lines)


def _limits(measured: Measured) -> str:
    found = [limits(measured, cluster) for cluster in CLUSTERS]
    return "\n".join(f"| {part} | {' | '.join(f'{one[part]:,.0f}' if part in one else '–' for one in found)} |" for part in found[0])


def _idle(measured: Measured) -> float:
    parts = limits(measured, CLUSTERS[0])
    return parts["GPUs"] / parts["CPUs of the workers"]


def _costs(rates: dict[str, float]) -> str:
    lines = []
    for cluster in CLUSTERS:
        machines, requests = dollars_a_million(cluster, rates[cluster.name])
        lines.append(f"| {cluster.name} | ${machines:,.2f} | ${requests:,.2f} | ${machines + requests:,.2f} |")
    return "\n".join(lines)


def _gradient_bytes() -> float:
    return 4.0 * read_card(resolve(DEFAULT_MODEL)).parameters


def _allreduce(workers: int) -> float:
    """Milliseconds."""
    return 2 * (workers - 1) / workers * _gradient_bytes() / ASSUMED["network"].value * 1e3


def _assumed() -> str:
    return "\n".join(f"| {name.replace('_', ' ')} | {one.value:,.12g} {one.unit} | {one.source} |" for name, one in ASSUMED.items())
