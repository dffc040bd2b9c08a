"""What a bulk run would take on 10 and 100 GPUs, and for a billion pictures: computed from what one core was measured to take.

    python -m jobs.benchmarks.stages scans      the costs of each stage anew, on these pictures, into jobs/scaling.json
    python -m jobs.docs                         docs/scaling.md, from that

`simulate` plays a run through, event by event: one driver that hands out blocks and takes rows back, workers that colour a block each with
a spread of times, spot nodes that are taken away in the middle, and come back. All that it starts from is a measured cost, or an assumption
that stands in ASSUMED with where it is from. No GPU was measured: what one predicts a second is computed from the network's operations.
"""

from __future__ import annotations

import heapq
import json
import random
from dataclasses import dataclass
from pathlib import Path

from colorize.archive.job import BLOCK_PICTURES
from colorize.archive.painter import GROUP_PICTURES

RECORD = Path(__file__).with_name("scaling.json")
LISTED = 20_000
"""Files that listing and the driver's part are timed on."""

GPUS = (10, 100)
BILLION = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one picture takes, in seconds of one core's processor time unless a name says otherwise."""

    hardware: str
    pictures: int
    """How many were coloured for it."""
    megapixels: float
    """Of one picture, on average."""
    read: float
    decode: float
    predict: float
    encode: float
    write: float
    source_bytes: float
    target_bytes: float
    listed: float
    """Listing and planning, on the driver."""
    driver: float
    """Taking a row back and writing it to the manifest, on the driver."""
    row_bytes: float
    """Of the driver's memory."""
    manifest_bytes: float
    """Of the manifest's file."""
    predict_flops: float
    """Of the network for one picture; with its mirror image, where the model is shown that too."""

    @property
    def around(self) -> float:
        """All that a worker does on its CPU where a GPU predicts."""
        return self.read + self.decode + self.encode + self.write


@dataclass(frozen=True)
class Assumption:
    """A number that was not measured here."""

    value: float
    unit: str
    source: str


ASSUMED = {
    "gpu_flops": Assumption(31.2e12, "FLOP/s", "A10G, float32 peak by NVIDIA's data sheet"),
    "gpu_share": Assumption(0.2, "of the peak", "assumed: depthwise convolutions are bound by memory"),
    "gpu_node_cpus": Assumption(8, "vCPUs beside one A10G", "AWS g5.2xlarge, as in ray-cluster.yaml"),
    "cpu_node_cpus": Assumption(16, "vCPUs", "AWS c7i.4xlarge, as in ray-cluster.yaml"),
    "core": Assumption(0.5, "measured cores a vCPU", "assumed: two vCPUs share a core"),
    "gpu_node_dollars": Assumption(1.212, "$ an hour", "g5.2xlarge, on demand, us-west-2 list price of 2025"),
    "cpu_node_dollars": Assumption(0.714, "$ an hour", "c7i.4xlarge, on demand, us-west-2 list price of 2025"),
    "spot": Assumption(0.4, "of the price on demand", "assumed; it changes by the hour"),
    "taken_away": Assumption(0.05, "of the spot nodes an hour", "assumed; AWS's advisor says below 5 % to above 20 % a month"),
    "node_start": Assumption(300, "s until another node works", "assumed: boot, packages, model"),
    "network": Assumption(0.625e9, "bytes/s a node", "5 Gbit/s, assumed of up to 10 (g5.2xlarge) and 12.5 (c7i.4xlarge)"),
    "gets": Assumption(5_500, "GET and HEAD a second and prefix", "Amazon S3 user guide"),
    "puts": Assumption(3_500, "PUT, COPY and DELETE a second and prefix", "Amazon S3 user guide"),
    "get_dollars": Assumption(0.4e-6, "$ a GET or HEAD", "Amazon S3 Standard, us-west-2 list price of 2025"),
    "put_dollars": Assumption(5e-6, "$ a PUT", "Amazon S3 Standard, us-west-2 list price of 2025"),
    "block": Assumption(0.010, "s a block, on the driver", "Ray Data's own, measured by an earlier script"),
    "driver_memory": Assumption(16e9, "bytes", "AWS m7i.xlarge, the head of ray-cluster.yaml"),
}

GETS_A_PICTURE = 2 + 1 / GROUP_PICTURES
"""The source, and a look at its place in the target; and of a group of pictures, a look whether the run is open."""

PUTS_A_PICTURE = 1 + 4 / GROUP_PICTURES
"""The output; and of a group its sheet of thumbnails, its intent, its end, and the intent's removal."""


def _of(name: str) -> float:
    return ASSUMED[name].value


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes of one kind."""

    name: str
    nodes: int
    has_gpus: bool

    @property
    def cores(self) -> float:
        """Of one node, of the kind that was measured."""
        return _of("gpu_node_cpus" if self.has_gpus else "cpu_node_cpus") * _of("core")

    @property
    def dollars(self) -> float:
        """An hour, of all nodes, on spot."""
        return self.nodes * _of("gpu_node_dollars" if self.has_gpus else "cpu_node_dollars") * _of("spot")


def limits(measured: Measured, cluster: Cluster) -> dict[str, float]:
    """Pictures a second that each part could do by itself."""
    cpu = measured.around + (0 if cluster.has_gpus else measured.predict)
    found = {
        "CPUs of the workers": cluster.nodes * cluster.cores / cpu,
        "network of the nodes": cluster.nodes * _of("network") / max(measured.source_bytes, measured.target_bytes),
        "bucket, reading (one prefix)": _of("gets") / GETS_A_PICTURE,
        "bucket, writing (one prefix)": _of("puts") / PUTS_A_PICTURE,
        "driver": 1 / (_of("block") / BLOCK_PICTURES + measured.driver),
    }
    if cluster.has_gpus:
        found["GPUs"] = cluster.nodes * _of("gpu_flops") * _of("gpu_share") / measured.predict_flops
    return found


def simulate(measured: Measured, cluster: Cluster, *, hours: float = 2.0, seed: int = 0) -> float:
    """Pictures a second of a run on these nodes, after a first half hour: one driver, nodes that take blocks, nodes that are taken away.

    A node works at the pace of its slowest part. A block that was under way on a node that is taken away is handed out again, and of it all
    but the groups that were committed is done again.
    """
    chance = random.Random(seed)
    parts = limits(measured, cluster)
    pace = min(rate for name, rate in parts.items() if name in ("CPUs of the workers", "network of the nodes", "GPUs"))
    seconds_a_block = BLOCK_PICTURES * cluster.nodes / pace
    bucket = min(parts["bucket, reading (one prefix)"], parts["bucket, writing (one prefix)"])
    served = BLOCK_PICTURES / min(parts["driver"], bucket)  # both are one queue that all blocks pass through
    end, warm = 3600 * hours, 1800.0
    free_at, done = 0.0, 0.0
    events = [(chance.uniform(0, seconds_a_block), node) for node in range(cluster.nodes)]
    heapq.heapify(events)
    lost_after = {node: chance.expovariate(_of("taken_away") / 3600) for node in range(cluster.nodes)}
    left = [0] * cluster.nodes
    while events:
        now, node = heapq.heappop(events)
        if now > end:
            continue
        begins = max(now, free_at)
        free_at = begins + served
        pictures = left[node] or BLOCK_PICTURES
        ends = free_at + seconds_a_block * pictures / BLOCK_PICTURES * chance.lognormvariate(-0.02, 0.2)
        if lost_after[node] < ends:
            committed = int((lost_after[node] - free_at) / (ends - free_at) * pictures) // GROUP_PICTURES * GROUP_PICTURES
            committed = max(0, committed)
            done += committed if lost_after[node] > warm else 0
            left[node] = pictures - committed
            back = max(lost_after[node], begins) + _of("node_start")
            lost_after[node] = back + chance.expovariate(_of("taken_away") / 3600)
            heapq.heappush(events, (back, node))
            continue
        left[node] = 0
        done += pictures if warm < ends <= end else 0
        heapq.heappush(events, (ends, node))
    return done / (end - warm)


def dollars_a_million(cluster: Cluster, rate: float) -> tuple[float, float]:
    """(machines, requests to the bucket) for a million pictures."""
    requests = GETS_A_PICTURE * _of("get_dollars") + PUTS_A_PICTURE * _of("put_dollars")
    return cluster.dollars / 3600 / rate * 1e6, requests * 1e6


def recorded() -> Measured:
    """What was measured last."""
    return Measured(**json.loads(RECORD.read_text()))
