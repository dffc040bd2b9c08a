"""Kubernetes manifests as the tests look at them: documents, pods, quantities, and whether the API server would take them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

ROOT = Path(__file__).parents[1]
KUBERAY = ROOT / "cluster/kuberay"
SCHEMA = ROOT / "tests/schemas/kuberay-1.7.yaml"
KUBERNETES = "1.37"

UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Object = dict[str, Any]


def kustomizations() -> list[Path]:
    """The folders that are applied or taken in by others."""
    return sorted(path.parent for path in KUBERAY.rglob("kustomization.yaml"))


@cache
def documents(path: Path) -> list[Object]:
    """What a file holds. It is read once: copy what is to be changed."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def manifests() -> list[Path]:
    return sorted(path for path in KUBERAY.rglob("*.yaml") if path.name != "kustomization.yaml")


def objects(kind: str | None = None) -> list[Object]:
    """Every object of every manifest, or those of one kind."""
    found = [document for path in manifests() for document in documents(path)]
    return [one for one in found if kind is None or one["kind"] == kind]


def quantity(text: str | int | float) -> float:
    """A quantity of Kubernetes, such as 500m or 8Gi, as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


@cache
def _registry() -> Registry[Any]:
    # kubernetes_validate.validate() knows no part of an object, such as the pods in one of KubeRay's, and reads all anew each time.
    path = files("kubernetes_validate").joinpath(f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/_definitions.json")
    kubernetes = json.loads(path.read_text()) | {"$id": "kubernetes"}
    kuberay = yaml.safe_load(SCHEMA.read_text())
    Draft202012Validator.check_schema(kuberay)
    return Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in (kubernetes, kuberay)])


def problems(one: Object) -> list[str]:
    """What the API server would not take, or would drop without a word; [] where all is well."""
    group, _, version = one["apiVersion"].rpartition("/")
    if group == "ray.io":
        schema = f"kuberay#/$defs/{one['kind']}"
    else:
        schema = f"kubernetes#/$defs/io.k8s.api.{group.partition('.')[0] or 'core'}.{version}.{one['kind']}"
    errors = Draft202012Validator({"$ref": schema}, registry=_registry()).iter_errors(one)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in errors]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that some object asks for."""

    owner: str
    """KIND/NAME, and the worker group where there is one."""
    role: str
    """head, worker or other."""
    labels: dict[str, str]
    """Those that it has in the cluster, the operator's too."""
    spec: Object
    group: Object | None = None
    """The head's or the worker group's spec."""
    cluster: Object | None = None
    """The Ray cluster's spec."""
    creator: str = ""
    """The kind of the object."""

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def container(self) -> Object:
        """The one that runs Ray, or the only one."""
        container: Object = self.spec["containers"][0]
        return container

    def requested(self, resource: str) -> float:
        """What the pod asks for in all; the autoscaler stands in the head's pod."""
        asked = sum(quantity(container["resources"]["requests"].get(resource, 0)) for container in self.spec["containers"])
        if self.role == "head" and self.cluster and self.cluster.get("enableInTreeAutoscaling"):
            asked += quantity(self.cluster["autoscalerOptions"]["resources"]["requests"].get(resource, 0))
        return asked


def ray_clusters() -> Iterator[tuple[str, Object, Object]]:
    """(KIND/NAME, the object, the spec of its Ray cluster)."""
    for one in objects():
        spec = one.get("spec", {})
        match one["kind"]:
            case "RayCluster":
                cluster = spec
            case "RayJob":
                cluster = spec["rayClusterSpec"]
            case "RayService":
                cluster = spec["rayClusterConfig"]
            case "RayCronJob":
                cluster = spec["jobTemplate"]["rayClusterSpec"]
            case _:
                continue
        yield f"{one['kind']}/{one['metadata']['name']}", one, cluster


def ray_jobs() -> dict[str, Object]:
    """KIND/NAME → the spec of a RayJob."""
    jobs = {f"RayJob/{one['metadata']['name']}": one["spec"] for one in objects("RayJob")}
    return jobs | {f"RayCronJob/{one['metadata']['name']}": one["spec"]["jobTemplate"] for one in objects("RayCronJob")}


def pods() -> list[Pod]:
    """Every pod that the manifests ask for."""
    found = []
    for name, one, cluster in ray_clusters():
        for role, group in [("head", cluster["headGroupSpec"]), *(("worker", group) for group in cluster["workerGroupSpecs"])]:
            labels = {"ray.io/is-ray-node": "yes", "ray.io/node-type": role}
            owner = name if role == "head" else f"{name}/{group['groupName']}"
            template = group["template"]
            found.append(
                Pod(
                    owner=owner,
                    role=role,
                    labels=labels | template["metadata"]["labels"],
                    spec=template["spec"],
                    group=group,
                    cluster=cluster,
                    creator=one["kind"],
                )
            )
    templates = [(name, job["submitterPodTemplate"]) for name, job in ray_jobs().items()]
    templates += [(f"CronJob/{one['metadata']['name']}", one["spec"]["jobTemplate"]["spec"]["template"]) for one in objects("CronJob")]
    templates += [(f"StatefulSet/{one['metadata']['name']}", one["spec"]["template"]) for one in objects("StatefulSet")]
    found += [Pod(owner=name, role="other", labels=one["metadata"]["labels"], spec=one["spec"]) for name, one in templates]
    return found


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector takes a pod or namespace in."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
