"""The manifests for Kubernetes: taken by its schemas and KubeRay's, listed, pinned, confined and without secrets."""

import copy
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from colorize.serve.keys import API_KEYS
from tests.manifests import KUBERAY, ROOT, Object, Pod, documents, kustomizations, manifests, objects, pods, problems, ray_clusters

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
USER = 10001
OURS = {"colorize-cpu", "colorize-gpu"}

ALL_PODS = pods()
each_manifest = pytest.mark.parametrize("path", manifests(), ids=lambda path: path.relative_to(KUBERAY).as_posix())
each_pod = pytest.mark.parametrize("pod", ALL_PODS, ids=lambda pod: f"{pod.owner}-{pod.component}")
each_ray_pod = pytest.mark.parametrize("pod", [pod for pod in ALL_PODS if pod.group], ids=lambda pod: f"{pod.owner}-{pod.component}")
each_cluster = pytest.mark.parametrize(
    ("one", "cluster"), [(one, spec) for _, one, spec in ray_clusters()], ids=[name for name, _, _ in ray_clusters()]
)


# Schemas


@each_manifest
def test_the_api_server_takes_it(path: Path) -> None:
    assert documents(path)
    assert {f"{one['kind']}/{one['metadata']['name']}": problems(one) for one in documents(path) if problems(one)} == {}


def worker(one: Object) -> Object:
    group: Object = one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return group


MISTAKES: dict[str, Callable[[Object], object]] = {
    "a field that is not there": lambda one: one["spec"].update(upgradeStrateg={"type": "NewCluster"}),
    "a strategy that is not there": lambda one: one["spec"].update(upgradeStrategy={"type": "Rolling"}),
    "a number in rayStartParams": lambda one: worker(one)["rayStartParams"].update({"num-cpus": 3}),
    "a group without its most": lambda one: worker(one).pop("maxReplicas"),
    "less than none": lambda one: worker(one).update(minReplicas=-1),
    "a misspelt field of a container": lambda one: worker(one)["template"]["spec"]["containers"][0].update(volumeMount=[]),
    "a misspelt field of a pod": lambda one: worker(one)["template"]["spec"].update(runAsNonRoot=True),
    "the schedule of another kind": lambda one: one["spec"].update(schedule="30 1 * * *"),
    "a version that is no text": lambda one: one["spec"]["rayClusterConfig"].update(rayVersion=2.6),
    "another mode of authentication": lambda one: one["spec"]["rayClusterConfig"]["authOptions"].update(mode="none"),
    "a Redis without a name": lambda one: one["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"].update(address="x:6379"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_noticed(mistake: str) -> None:
    (service,) = objects("RayService")
    wrong = copy.deepcopy(service)
    MISTAKES[mistake](wrong)
    assert problems(wrong)


def test_a_mistake_in_kubernetes_own_objects_would_be_noticed() -> None:
    for kind, wrong in [
        ("CronJob", {"concurrencyPolcy": "Forbid"}),
        ("NetworkPolicy", {"ingres": []}),
        ("PodDisruptionBudget", {"minAvailabel": 1}),
    ]:
        for one in objects(kind):
            assert problems(one | {"spec": one["spec"] | wrong}), kind


@each_cluster
def test_names_are_what_kuberay_takes(one: Object, cluster: Object) -> None:
    """It makes names of services and pods from them, and refuses what would not fit."""
    names = [one["metadata"]["name"], *(group["groupName"] for group in cluster["workerGroupSpecs"])]
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?", name) for name in names)


# Kustomizations


def test_kustomizations_list_every_file_and_nothing_that_is_not_there() -> None:
    listed = set()
    for folder in kustomizations():
        found = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert set(found) <= {"apiVersion", "kind", "namespace", "resources", "components", "images"}, folder.name
        for name in found.get("resources", []):
            assert (folder / name).is_file(), f"{folder.name} lists {name}"
            listed.add(folder / name)
        for name in found.get("components", []):
            assert documents(folder / name / "kustomization.yaml")[0]["kind"] == "Component"
        if folder.name != "images":
            assert found["namespace"] == "colorize"
            assert found["kind"] == "Kustomization"
    assert listed == set(manifests())


def test_only_what_has_images_of_ours_takes_them_from_the_one_place() -> None:
    (place,) = documents(KUBERAY / "images/kustomization.yaml")
    assert {image["name"] for image in place["images"]} == OURS
    for folder in kustomizations():
        found = yaml.safe_load((folder / "kustomization.yaml").read_text())
        has_ours = any(re.search(r"image: colorize-", (folder / name).read_text()) for name in found.get("resources", []))
        assert (found.get("components", []) == ["../images"]) == has_ours, folder.name


def test_no_two_objects_have_one_name_and_budgets_lie_beside_what_they_guard() -> None:
    for folder in kustomizations():
        found = yaml.safe_load((folder / "kustomization.yaml").read_text())
        names = [(one["kind"], one["metadata"]["name"]) for name in found.get("resources", []) for one in documents(folder / name)]
        assert len(set(names)) == len(names), folder.name
        assert all("namespace" not in one["metadata"] for name in found.get("resources", []) for one in documents(folder / name))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_itself_builds_them_and_takes_images_and_namespace(tmp_path: Path) -> None:
    """With another registry and tag, as a release writes them in: every pod of ours gets them, anchors are resolved, nothing is lost."""
    shutil.copytree(KUBERAY, tmp_path / "kuberay")
    place = tmp_path / "kuberay/images/kustomization.yaml"
    changed = re.sub(r"newName: (\S+)", r"newName: images.example.org/\1", place.read_text()).replace(f'"{VERSION}"', '"9.9.9"')
    place.write_text(changed)
    for folder in kustomizations():
        if folder.name == "images":
            continue
        command = ["kubectl", "kustomize", str(tmp_path / "kuberay" / folder.name)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        built = [one for one in yaml.safe_load_all(run.stdout) if one]
        names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        assert len(built) == sum(len(documents(folder / name)) for name in names)
        for one in built:
            assert problems(one) == []
            assert one["metadata"].get("namespace", one["metadata"]["name"]) == "colorize"
        images = re.findall(r"image: (\S+)", run.stdout)
        assert all(re.fullmatch(r"images\.example\.org/colorize-[cg]pu:9\.9\.9|valkey/.*", image) for image in images), images


# Images and versions


def test_images_are_pinned_and_ours_have_the_projects_version() -> None:
    (place,) = documents(KUBERAY / "images/kustomization.yaml")
    assert {image["newTag"] for image in place["images"]} == {VERSION}
    assert {image["newName"] for image in place["images"]} == OURS
    images = {container["image"] for pod in ALL_PODS for container in pod.spec["containers"]}
    assert {f"{name}:{VERSION}" for name in OURS} <= images
    for image in images:
        name, separator, tag = image.rpartition(":")
        assert separator, image
        assert re.match(r"\d+\.\d+\.\d+", tag), f"{image}: not pinned to a release"
        assert name not in OURS or tag == VERSION
    for page in ("docs/kubernetes.md", "Dockerfile"):
        assert set(re.findall(r"colorize-[cg]pu:(\S+)", (ROOT / page).read_text())) == {VERSION}, page


@each_cluster
def test_ray_is_the_version_that_the_image_has(one: Object, cluster: Object) -> None:
    assert cluster["rayVersion"] == PINS["ray"]


@each_ray_pod
def test_the_image_with_cuda_is_where_a_gpu_is(pod: Pod) -> None:
    wants_gpu = pod.requested("nvidia.com/gpu") > 0
    assert pod.container["image"].startswith("colorize-gpu:" if wants_gpu else "colorize-cpu:")
    tolerated = [one["key"] for one in pod.spec.get("tolerations", [])]
    assert tolerated == (["nvidia.com/gpu"] if wants_gpu else [])


# Who the pods are


@each_pod
def test_pods_are_confined(pod: Pod) -> None:
    """What `restricted`, which the namespace enforces, asks for, and a file system that cannot be written to."""
    of_pod = pod.spec["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
    assert all(set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in pod.spec.get("volumes", []))
    for container in pod.spec["containers"]:
        check_confined(container["securityContext"])
        assert pod.component == "redis" or of_pod["runAsUser"] == of_pod["runAsGroup"] == of_pod["fsGroup"] == USER
        # Ray writes into /tmp, and nowhere else.
        assert pod.component == "redis" or {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def check_confined(context: Object) -> None:
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}


@each_cluster
def test_the_autoscaler_is_confined_too_and_alone_may_speak_to_kubernetes(one: Object, cluster: Object) -> None:
    head = cluster["headGroupSpec"]["template"]["spec"]
    scales = cluster.get("enableInTreeAutoscaling", False)
    assert head["automountServiceAccountToken"] is scales
    for group in cluster["workerGroupSpecs"]:
        assert group["template"]["spec"]["automountServiceAccountToken"] is False
        assert scales or group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    if scales:
        check_confined(cluster["autoscalerOptions"]["securityContext"])
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert all("restartPolicy" not in pod.spec for pod in ALL_PODS if pod.cluster is cluster)  # which KubeRay refuses with v2


@each_pod
def test_pods_have_accounts_that_are_there_and_no_token_unless_they_need_it(pod: Pod) -> None:
    accounts = {one["metadata"]["name"] for one in objects("ServiceAccount")}
    assert pod.component == "redis" or pod.spec["serviceAccountName"] in accounts
    assert "automountServiceAccountToken" in pod.spec
    assert pod.spec["enableServiceLinks"] is False
    assert all(one["automountServiceAccountToken"] is False for one in objects("ServiceAccount"))


def test_the_namespace_refuses_others() -> None:
    (namespace,) = objects("Namespace")
    assert namespace["metadata"]["name"] == "colorize"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# Secrets


def example_of_secrets() -> dict[str, str]:
    lines = (KUBERAY / "secrets.example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def test_no_secret_is_in_a_file() -> None:
    assert objects("Secret") == []
    for path in [*KUBERAY.rglob("*"), ROOT / "Dockerfile"]:
        if path.is_file():
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|\b[0-9a-f]{32,}\b|[0-9A-Za-z+/]{40,}=", path.read_text()), (
                path.name
            )
    assert set(example_of_secrets().values()) == {""}
    assert "secrets.env" in (ROOT / ".gitignore").read_text().split()


@each_pod
def test_what_is_secret_comes_from_a_secret_that_the_docs_make(pod: Pod) -> None:
    made = {"colorize-secrets": set(example_of_secrets())}
    made |= {name.split("/")[1]: {"auth_token"} for name, one, _ in ray_clusters() if one["kind"] == "RayCluster"}  # by the operator
    for container in pod.spec["containers"]:
        for variable in container.get("env", []):
            if re.search(r"KEY|PASSWORD|TOKEN|SECRET", variable["name"]):
                assert "value" not in variable
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["key"] in made[reference["name"]]
        for source in container.get("envFrom", []):
            assert source == {"secretRef": {"name": "colorize-bucket", "optional": True}}


@each_cluster
def test_every_cluster_asks_for_a_token(one: Object, cluster: Object) -> None:
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_service_has_keys_wherever_it_may_be_built() -> None:
    """Ray builds the application on whichever machine it likes, and it answers nobody from elsewhere without keys."""
    for pod in ALL_PODS:
        if pod.creator == "RayService":
            assert API_KEYS in {variable["name"] for variable in pod.container["env"]}
    assert API_KEYS in example_of_secrets()
