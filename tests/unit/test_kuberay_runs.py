"""What the manifests run, on how much: true to this program, to the machines of docs/kubernetes.md, and to one another."""

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from colorize.cli.main import app
from colorize.serve.config import ServeConfig
from tests.manifests import KUBERAY, ROOT, Object, Pod, kustomizations, objects, pods, quantity, ray_jobs, selects

GROUP: Any = typer.main.get_command(app)
PAGE = ROOT / "docs/kubernetes.md"

ALL_PODS = pods()
each_pod = pytest.mark.parametrize("pod", ALL_PODS, ids=lambda pod: f"{pod.owner}-{pod.component}")
each_ray_pod = pytest.mark.parametrize("pod", [pod for pod in ALL_PODS if pod.group], ids=lambda pod: f"{pod.owner}-{pod.component}")


# Sizes


def machines() -> dict[str, dict[str, float]]:
    """What docs/kubernetes.md says that each pool's machines leave for pods."""
    found = {}
    for name, left in re.findall(r"^\| (general|large|gpu) \|[^|]*\| ([^|]*) \|", PAGE.read_text(), re.MULTILINE):
        cpus, memory = re.search(r"([\d.]+) CPUs, (\d+) GiB", left).groups()  # type: ignore[union-attr]
        gpus = re.search(r"(\d+) GPU\b", left)
        found[name] = {"cpu": float(cpus), "memory": float(memory) * 2**30, "nvidia.com/gpu": float(gpus[1]) if gpus else 0.0}
    return found


def pool_of(pod: Pod) -> str:
    if pod.requested("nvidia.com/gpu"):
        return "gpu"
    return "large" if pod.component in {"archive-worker", "nightly-worker"} else "general"


@each_pod
def test_pods_fit_their_machines(pod: Pod) -> None:
    machine = machines()[pool_of(pod)]
    for resource, left in machine.items():
        assert pod.requested(resource) <= left, f"{resource}: {pod.requested(resource)} of {left}"
    if pod.role == "worker" and pod.component != "service-worker":  # one of them fills a machine, or more money than needed is spent
        assert pod.requested("cpu") > machine["cpu"] / 2


@each_pod
def test_memory_is_limited_to_what_is_asked_for_and_cpus_are_not(pod: Pod) -> None:
    for container in pod.spec["containers"]:
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "cpu" in resources["requests"]
        assert "cpu" not in resources["limits"]
        assert resources["requests"].get("nvidia.com/gpu") == resources["limits"].get("nvidia.com/gpu")


@each_ray_pod
def test_ray_is_told_what_its_pod_has(pod: Pod) -> None:
    assert pod.group is not None
    told, limits = pod.group["rayStartParams"], pod.container["resources"]["limits"]
    cpus = quantity(pod.container["resources"]["requests"]["cpu"])
    assert float(told["num-cpus"]) == (0 if pod.role == "head" else cpus)
    assert float(told.get("num-gpus", 0)) == quantity(limits.get("nvidia.com/gpu", 0))
    store, memory = int(told["object-store-memory"]), quantity(limits["memory"])
    assert int(told["memory"]) + store <= memory - 2**30, "Ray's own processes need room too"
    mounts = {mount["mountPath"]: mount["name"] for mount in pod.container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    shared = volumes[mounts["/dev/shm"]]["emptyDir"]
    assert shared["medium"] == "Memory"
    # Ray takes the disk in its place where it is smaller; and all of it counts as the pod's memory.
    assert store <= quantity(shared["sizeLimit"]) <= memory
    assert set(mounts.values()) <= set(volumes)
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values() if "emptyDir" in volume)


def test_volumes_are_claims_that_many_machines_may_write() -> None:
    claims = {one["metadata"]["name"]: one["spec"] for one in objects("PersistentVolumeClaim")}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in ALL_PODS
        for volume in pod.spec.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    assert used == set(claims) == {"colorize-archive"}
    assert claims["colorize-archive"]["accessModes"] == ["ReadWriteMany"]


# Commands


def check_command(words: list[str]) -> dict[str, Any]:
    """The options of a `colorize …`, as the program itself reads them."""
    program, name, *arguments = words
    assert program == "colorize"
    context = GROUP.commands[name].make_context(name, list(arguments))
    return {"command": name, **context.params}


def submitted() -> dict[str, list[str]]:
    """KIND/NAME → the words of the command that is submitted to Ray."""
    found = {name: shlex.split(job["entrypoint"]) for name, job in ray_jobs().items()}
    for one in objects("CronJob"):
        command = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
        assert command[:3] == ["ray", "job", "submit"]
        found[f"CronJob/{one['metadata']['name']}"] = command[command.index("--") + 1 :]
    return found


@pytest.mark.parametrize(("name", "words"), submitted().items())
def test_commands_are_what_the_program_takes_and_the_cluster_has_room_for(name: str, words: list[str]) -> None:
    told = check_command(words)
    assert told["command"] in {"archive", "train"}
    assert told["address"] is None  # Ray tells its jobs where they are
    owner = name.replace("CronJob/", "RayCluster/") if name.startswith("CronJob/") else name  # whose machines it runs on
    workers = [pod for pod in ALL_PODS if pod.role == "worker" and pod.owner.rpartition("/")[0] == owner]
    (group,) = [pod.group for pod in workers]
    assert group is not None
    cpus, gpus = (int(group["rayStartParams"].get(key, 0)) for key in ("num-cpus", "num-gpus"))
    if name.startswith("CronJob"):
        assert told["workers"] == group["maxReplicas"] * cpus - 1  # the entry point has one; the run asks for those that are missing
    else:
        assert int(told["workers"]) == group["replicas"] * (gpus if told.get("gpu") else cpus)
    for place in (told.get("source"), told.get("target"), told.get("run")):
        assert place is None or Path(place).is_relative_to("/archive"), f"{place}: on no volume"


def test_ray_takes_what_it_is_told() -> None:
    """Its own command lines know the options of `rayStartParams` and of the night's submission."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from ray.dashboard.consts import RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR
        from ray.dashboard.modules.job.cli import submit
        from ray.scripts.scripts import start
    known = {option.lstrip("-") for parameter in start.params for option in parameter.opts}
    for pod in ALL_PODS:
        assert set((pod.group or {}).get("rayStartParams", {})) <= known
    (cron,) = objects("CronJob")
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    told = submit.make_context("submit", container["command"][3:]).params
    assert list(told["entrypoint"]) == submitted()["CronJob/colorize-nightly"]
    assert (told["entrypoint_num_cpus"], told["no_wait"]) == (1, False)
    (head,) = [pod for pod in ALL_PODS if pod.component == "nightly-head"]
    job = ray_jobs()["RayJob/colorize-archive"]
    assert head.container["env"] == [{"name": RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR, "value": str(job["preRunningDeadlineSeconds"])}]


def test_the_commands_of_the_page_are_those_of_the_manifests() -> None:
    """The resumption that docs and manifest speak of goes on with the run that the manifest starts."""
    run = check_command(submitted()["RayJob/colorize-train"])["run"]
    for text in (PAGE.read_text(), (KUBERAY / "train/rayjob.yaml").read_text()):
        (command,) = set(re.findall(r"`(colorize train --resume [^`]+)`", text))
        assert check_command(shlex.split(command))["resume"] == run
    for folder in re.findall(r"apply -k cluster/kuberay/([a-z-]+)", PAGE.read_text()):
        assert (KUBERAY / folder / "kustomization.yaml").is_file()
    told = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert {folder.name for folder in kustomizations()} - {"images"} <= told


# The schedule


def check_cron(expression: str) -> None:
    """Five fields of cron, as Kubernetes and KubeRay read them."""
    fields = expression.split()
    assert len(fields) == 5, expression
    for field, (least, most) in zip(fields, [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)], strict=True):
        for part in field.split(","):
            numbers = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/[1-9]\d*)?", part)
            assert numbers, f"{expression}: {part}"
            assert all(least <= int(number) <= most for number in numbers.groups() if number), f"{expression}: {part}"


@pytest.mark.parametrize("wrong", ["30 1 * *", "61 1 * * *", "30 24 * * *", "30 1 0 * *", "* * * * 7-9", "@nightly", "a 1 * * *"])
def test_a_wrong_schedule_would_be_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_cron(wrong)


def test_both_schedules_are_cron_and_say_the_same() -> None:
    (cron,), (alpha,) = objects("CronJob"), objects("RayCronJob")
    check_cron(cron["spec"]["schedule"])
    assert (cron["spec"]["schedule"], cron["spec"]["timeZone"]) == (alpha["spec"]["schedule"], alpha["spec"]["timeZone"])
    minute, hour, *_ = cron["spec"]["schedule"].split()
    assert f" {hour}:{minute}" in PAGE.read_text()


def test_nights_do_not_overlap_and_a_follower_is_no_second_run() -> None:
    (cron,) = objects("CronJob")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    job = cron["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["activeDeadlineSeconds"] < 24 * 3600
    (container,) = job["template"]["spec"]["containers"]
    assert "--no-wait" not in container["command"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["RAY_AUTH_MODE"]["value"] == "token"
    assert "--submission-id=$(JOB_NAME)" in container["command"]
    assert "JOB_NAME" in variables
    (cluster,) = objects("RayCluster")
    assert f"--address=http://{cluster['metadata']['name']}-head-svc:8265" in container["command"]
    assert variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster["metadata"]["name"], "key": "auth_token"}


def test_the_night_starts_from_no_machine_and_asks_for_the_first() -> None:
    (cluster,), (cron,) = objects("RayCluster"), objects("CronJob")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    assert group["maxReplicas"] >= 1
    assert "--entrypoint-num-cpus=1" in cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]


def test_the_alpha_is_the_bulk_run() -> None:
    (alpha,) = objects("RayCronJob")
    assert alpha["spec"]["jobTemplate"] == ray_jobs()["RayJob/colorize-archive"]


@pytest.mark.parametrize(("name", "job"), ray_jobs().items())
def test_jobs_end_and_clean_up(name: str, job: Object) -> None:
    assert job["shutdownAfterJobFinishes"] is True
    assert job["activeDeadlineSeconds"] > job["preRunningDeadlineSeconds"] > 0
    # A second try of a training run would be refused, since its folder is there already.
    assert job["backoffLimit"] == (0 if "train" in name else 1)


# The service


def test_the_service_is_that_of_cluster_serve_yaml_but_for_its_size_and_where_it_listens() -> None:
    (service,) = objects("RayService")
    here = yaml.safe_load(service["spec"]["serveConfigV2"])
    there = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from ray.serve.schema import ServeDeploySchema
    ServeDeploySchema.model_validate(here)
    (application,), (standard,) = here.pop("applications"), there.pop("applications")
    sizes = {"ingress_replicas", "max_ingress_replicas", "ingress_cpus", "model_replicas", "max_model_replicas", "model_cpus"}
    settings, defaults = application.pop("args"), standard.pop("args")
    assert application == standard
    assert set(settings) == set(defaults)
    assert {key for key in settings if settings[key] != defaults[key]} <= sizes
    assert here == there | {"proxy_location": "EveryNode", "http_options": {"host": "0.0.0.0", "port": 8000}}


def test_the_service_fits_its_cluster_and_grows_as_far_as_the_cluster_does() -> None:
    (service,) = objects("RayService")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    config = ServeConfig(**application["args"])
    groups = {group["groupName"]: group for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    cpus = int(groups["cpu"]["rayStartParams"]["num-cpus"])
    assert config.ingress_cpus + config.model_cpus == cpus  # one of each on a machine
    assert config.cpus == groups["cpu"]["minReplicas"] * cpus
    most = config.max_ingress_replicas * config.ingress_cpus + config.max_model_replicas * config.model_cpus
    assert most == groups["cpu"]["maxReplicas"] * cpus
    # Deployed again, each deployment starts a new replica before it ends an old one.
    assert groups["cpu"]["maxReplicas"] > groups["cpu"]["minReplicas"] > 1
    assert groups["gpu"]["minReplicas"] == groups["gpu"]["replicas"] == 0


def test_upgrades_take_a_second_cluster_that_shares_nothing_with_the_first() -> None:
    (service,) = objects("RayService")
    spec = service["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert spec["rayClusterDeletionDelaySeconds"] >= 60  # what a request may take to finish, and longer
    assert spec["excludeHeadPodFromServeSvc"] is True
    options = spec["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert "externalStorageNamespace" not in options
    (redis,) = [one for one in objects("Service") if one["metadata"]["name"] == "colorize-redis"]
    assert options["redisAddress"] == f"{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}"
    (store,) = objects("StatefulSet")
    assert selects({"matchLabels": redis["spec"]["selector"]}, store["spec"]["template"]["metadata"]["labels"])
    assert options["redisPassword"]["valueFrom"] == store["spec"]["template"]["spec"]["containers"][0]["env"][0]["valueFrom"]
    assert "$REDIS_PASSWORD" in store["spec"]["template"]["spec"]["containers"][0]["args"][0]
