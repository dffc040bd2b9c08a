"""A cluster: whether it answers, lets this user in, has this program's versions, and lives.

It is asked in a process of its own, which is ended when it takes too long: a cluster that half answers cannot keep anybody waiting, and
this process does not become a driver of it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

from colorize.doctor.finding import Finding
from colorize.storage.url import without_secrets

REACH_SECONDS = 45.0
"""Joining takes 2 s, and 16 s until an address counts as dead (`cluster.connect`)."""

CHECK = "cluster"


def check_cluster(address: str | None, *, seconds: float = REACH_SECONDS) -> Finding:
    """Joins the cluster at `address`, or at RAY_ADDRESS, for a moment."""
    target = address or os.environ.get("RAY_ADDRESS")
    if target and target.startswith(("ray://", "http://", "https://")):
        whose = "a Ray client's" if target.startswith("ray://") else "a job server's"
        return Finding(
            check=CHECK, status="wrong", found=f"{without_secrets(target)}: {whose} address does not say what runs there",
            advice="give host:port of the head, and look from a machine that reaches it",
        )  # fmt: skip
    if not target or target == "local":
        return Finding(check=CHECK, status="ok", found="none named (--address, RAY_ADDRESS): each command starts a Ray here")
    asked = subprocess.Popen([sys.executable, "-m", __name__, target], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        answer, _ = asked.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.communicate()
        return Finding(
            check=CHECK, status="wrong", found=f"{target}: no answer within {seconds:g} s",
            advice="it accepts connections and does not go on: `ray status` on its head, and the firewall between you and all of its nodes",
        )  # fmt: skip
    except BaseException:
        asked.kill()
        asked.communicate()
        raise
    try:
        facts = json.loads(answer.splitlines()[-1])
    except (ValueError, IndexError):
        return Finding(check=CHECK, status="wrong", found=f"{target}: joining it ended with exit code {asked.returncode}", advice=_VERSIONS)
    return judge(target, facts)


_VERSIONS = "the same Ray and Python are needed on every machine: constraints.txt has the versions"


def judge(target: str, facts: dict[str, Any]) -> Finding:
    """facts: what `ask` gives."""
    if "error" in facts:
        advice = "see docs/cluster.md"
        if "ersion mismatch" in facts["error"]:
            advice = _VERSIONS
        elif any(word in facts["error"].lower() for word in ("token", "unauthenticated", "authentication")):
            advice = "the cluster's token belongs into ~/.ray/auth_token or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
        return Finding(check=CHECK, status="wrong", found=facts["error"], advice=advice)
    ours = {"ray": facts["own_ray"], "python": platform.python_version()}
    differing = [f"{name} {facts[name]} there, {version} here" for name, version in ours.items() if facts[name] != version]
    if differing:
        return Finding(check=CHECK, status="wrong", found=f"{target}: {'; '.join(differing)}", advice=_VERSIONS)
    shown = f"{target}: Ray {facts['ray']} and Python {facts['python']} as here, {facts['alive']} node{'s' * (facts['alive'] != 1)} alive"
    shown += f", {facts['cpus']} CPUs, {facts['gpus']} GPUs, {'its token accepted' if facts['token'] else 'no token asked for'}"
    if facts["dead"]:
        return Finding(check=CHECK, status="warning", found=f"{shown}; {facts['dead']} dead", advice="`ray status` says which nodes died")
    if not facts["token"] and not target.startswith(("127.", "localhost", "auto")):
        return Finding(
            check=CHECK, status="warning", found=shown, advice="start it with RAY_AUTH_MODE=token: whoever reaches it runs code there"
        )
    return Finding(check=CHECK, status="ok", found=shown)


def ask(address: str) -> dict[str, Any]:
    """Joins and leaves. Gives versions, nodes and whether a token was shown; or, under `error`, why that did not work."""
    import ray
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._private.worker import global_worker  # the only place that has the client of what the cluster knows of itself

    from colorize import auth, cluster
    from colorize.errors import ClusterError, one_line

    try:
        with cluster.connect(address) as info:
            versions = get_cluster_metadata(global_worker.gcs_client)  # type: ignore[attr-defined]
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            return {
                "ray": versions["ray_version"], "python": versions["python_version"], "own_ray": ray.__version__, "alive": info.nodes,
                "dead": sum(not node["Alive"] for node in nodes), "cpus": info.cpus, "gpus": info.gpus,
                "token": os.environ.get(auth.MODE, "").lower() == "token",
            }  # fmt: skip
    except ClusterError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 – whatever keeps it from answering is what was asked for
        last = (str(error).strip().splitlines() or [""])[-1]
        return {"error": f"{address}: joining it failed: {one_line(f'{type(error).__name__}: {last}')}"}


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1])), flush=True)
