"""A cluster that grows by itself: whether this one does, and how it is asked to.

Ray's autoscalers start nodes for what is waited for, but do not say how far they would grow. So what is missing is asked for and waited
for, with a limit. It is asked for as a placement group: that is this program's own and ends with it, where `request_resources` is one
request for the whole cluster, which the next program overwrites.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._raylet import GCS_AUTOSCALER_STATE_NAMESPACE, GCS_AUTOSCALER_V2_ENABLED_KEY  # type: ignore[attr-defined]
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group

GROW_SECONDS = 900.0
"""How long a cluster may take: a machine of a cloud with a GPU starts in 3 to 6 minutes, one that loads its image first in up to ten."""

LOOK_SECONDS = 1.0

GROUP = "ray.io/node-group"
"""The label of a node with the name that its type has in the configuration of an autoscaler."""

ANONYMOUS = "node_"
"""How the first generation calls the type of a node that was started by hand."""


def grows() -> bool:
    """Whether an autoscaler that can start nodes looks after the cluster that this process is connected to, also by `ray://`."""
    if _internal_kv_get(GCS_AUTOSCALER_V2_ENABLED_KEY, namespace=GCS_AUTOSCALER_STATE_NAMESPACE) == b"1":
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return any(GROUP in node["Labels"] for node in nodes)
    # What `ray status` shows; the first generation of autoscalers leaves it here.
    told = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = (json.loads(told) if told else {}).get("autoscaler_report") or {}
    return any(not kind.startswith(ANONYMOUS) for kind in (report.get("node_type_mapping") or {}).values())


def grow(bundles: list[dict[str, float]], is_enough: Callable[[], bool]) -> None:
    """Asks for room for all `bundles`, and waits until `is_enough`, for GROW_SECONDS at most."""
    deadline = time.monotonic() + GROW_SECONDS
    group = placement_group(bundles)
    try:
        while not is_enough() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
    finally:
        remove_placement_group(group)
