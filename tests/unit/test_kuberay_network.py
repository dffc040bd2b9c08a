"""Who reaches what in the namespace, and which pods may be taken away."""

from tests.manifests import ROOT, Pod, objects, pods, selects

RAY_PORTS = {6379, 8265, 10001, 52365, 8076}
OPERATOR = {"kubernetes.io/metadata.name": "kuberay-system"}
GATEWAY = {"colorize-ingress": "true"}
PROMETHEUS = {"colorize-metrics": "true"}

ALL_PODS = pods()


# Who reaches what


def test_all_is_denied_that_is_not_named() -> None:
    (deny,) = [one for one in objects("NetworkPolicy") if one["metadata"]["name"] == "deny-all"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_from_outside_only_the_gateway_prometheus_and_the_operator_come_in() -> None:
    let_in = set()
    for policy in objects("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for source in rule["from"]:
                assert "ipBlock" not in source
                assert source, "an empty source is everybody"
                if "namespaceSelector" in source:
                    labels = source["namespaceSelector"]["matchLabels"]
                    assert labels in (OPERATOR, GATEWAY, PROMETHEUS)
                    if labels == OPERATOR:
                        assert source["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
                    let_in |= {(next(iter(labels)), port["port"]) for port in rule["ports"]}
    metrics = {("colorize-metrics", port) for port in (8080, 44217, 44227)}
    assert let_in == {("kubernetes.io/metadata.name", 8265), ("colorize-ingress", 8000)} | metrics


def test_prometheus_reaches_every_ray_pod() -> None:
    (policy,) = [one for one in objects("NetworkPolicy") if one["metadata"]["name"] == "prometheus-to-metrics"]
    reached = [pod for pod in ALL_PODS if selects(policy["spec"]["podSelector"], pod.labels)]
    assert {pod.owner for pod in reached} == {pod.owner for pod in ALL_PODS if pod.role in ("head", "worker")}
    assert f"label namespace monitoring {'='.join(*PROMETHEUS.items())}" in (ROOT / "docs/kubernetes.md").read_text()


def reaches(source: Pod, target: Pod, port: int) -> bool:
    """Whether the policies let a pod of the namespace reach another's port: out of the one and into the other."""

    def allowed(owner: Pod, other: Pod, direction: str, key: str) -> bool:
        for policy in objects("NetworkPolicy"):
            spec = policy["spec"]
            if direction.capitalize() not in spec["policyTypes"] or not selects(spec["podSelector"], owner.labels):
                continue
            for rule in spec.get(direction, []):
                fits = any(
                    selects(one["podSelector"], other.labels)
                    for one in rule[key]
                    if "podSelector" in one and "namespaceSelector" not in one
                )
                if fits and ("ports" not in rule or port in {one["port"] for one in rule["ports"]}):
                    return True
        return False

    return allowed(source, target, "egress", "to") and allowed(target, source, "ingress", "from")


def test_within_the_namespace_each_reaches_what_it_needs_and_no_more() -> None:
    of = {role: [pod for pod in ALL_PODS if pod.role == role] for role in ("head", "worker")}
    submitters = [pod for pod in ALL_PODS if pod.component == "submitter"]
    (redis,) = [pod for pod in ALL_PODS if pod.component == "redis"]
    assert len(submitters) == 4
    for head in of["head"]:
        assert all(reaches(worker, head, 6379) and reaches(head, worker, 20000) for worker in of["worker"])
        assert reaches(head, redis, 6379)
        assert not reaches(redis, head, 6379)
        for submitter in submitters:
            assert {port for port in RAY_PORTS | {8000} if reaches(submitter, head, port)} == {8265}
    for worker_pod in of["worker"]:
        assert not reaches(worker_pod, redis, 6379)
        assert not any(reaches(submitter, worker_pod, port) for submitter in submitters for port in RAY_PORTS | {8000})


def test_the_gateway_reaches_the_pods_that_serve() -> None:
    (policy,) = [one for one in objects("NetworkPolicy") if one["metadata"]["name"] == "gateway-to-service"]
    reached = {pod.owner for pod in ALL_PODS if selects(policy["spec"]["podSelector"], pod.labels)}
    assert reached == {"RayService/colorize-service/cpu", "RayService/colorize-service/gpu"}
    assert f"label namespace gateway {'='.join(*GATEWAY.items())}" in (ROOT / "docs/kubernetes.md").read_text()


def test_budgets_guard_pods_that_exist_and_count_as_kubernetes_can() -> None:
    for budget in objects("PodDisruptionBudget"):
        spec = budget["spec"]
        guarded = [pod for pod in ALL_PODS if selects(spec["selector"], pod.labels)]
        assert {pod.owner.split("/")[1] for pod in guarded} >= {budget["metadata"]["name"]}
        # Pods of a RayCluster have no owner with a scale: Kubernetes takes minAvailable for them, as a number.
        assert set(spec) == {"minAvailable", "selector"}
        assert isinstance(spec["minAvailable"], int)
        running = sum(pod.group["replicas"] if pod.role == "worker" and pod.group else 1 for pod in guarded)
        if budget["metadata"]["name"] == "colorize-train":
            assert spec["minAvailable"] == running
        else:
            assert 1 <= spec["minAvailable"] <= running
    assert {budget["metadata"]["name"] for budget in objects("PodDisruptionBudget")} == {
        "colorize-service",
        "colorize-archive",
        "colorize-train",
    }
