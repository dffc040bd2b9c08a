"""A cluster that grows by itself: whether this one does, and how it is asked to.

Ray's autoscalers start nodes for what is waited for, but do not say how far they would grow. So what is missing is asked for and waited
for, with a limit. It is asked for as a placement group: that is this program's own and ends with it, where `request_resources` is one
request for the whole cluster, which the next program overwrites.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group

GROW_SECONDS = 900.0
"""How long a cluster may take: a machine of a cloud with a GPU starts in 3 to 6 minutes, one that loads its image first in up to ten."""

LOOK_SECONDS = 1.0

ANONYMOUS = "node_"
"""How the type of a node begins where Ray was started by hand; those that an autoscaler looks after have the names of its configuration."""


def grows() -> bool:
    """Whether an autoscaler that can start nodes looks after the cluster that this process is connected to."""
    return any(not kind.startswith(ANONYMOUS) for kind in _node_types())


def _node_types() -> list[str]:
    if is_autoscaler_v2():
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        return [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
    # What `ray status` shows; the first generation of autoscalers leaves it here.
    told = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = (json.loads(told) if told else {}).get("autoscaler_report") or {}
    return list((report.get("node_type_mapping") or {}).values())


def grow(bundles: list[dict[str, float]], is_enough: Callable[[], bool], seconds: float | None = None) -> bool:
    """Asks for room for all `bundles`, and waits until `is_enough`; False after `seconds` (GROW_SECONDS) without."""
    deadline = time.monotonic() + (GROW_SECONDS if seconds is None else seconds)
    group = placement_group(bundles)
    try:
        while not is_enough():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True
    finally:
        remove_placement_group(group)
