"""The manifests in deploy/kubernetes: valid, restricted, and with the fields that a sidecar needs."""

import copy

import pytest

from system.deploy.pod_security import violations
from system.deploy.tools import Document, kustomize, only, parse, validate

pytestmark = pytest.mark.system

PODS = {"sidecar": "Deployment", "job": "Job", "shared": "Deployment"}


def _pod(folder: str) -> Document:
    template: Document = only(kustomize(folder), PODS[folder])["spec"]["template"]
    return template


def _proxy(folder: str) -> Document:
    spec = _pod(folder)["spec"]
    containers = spec["initContainers"] if folder != "shared" else spec["containers"]
    (proxy,) = [container for container in containers if container["name"] == "nanonets-proxy"]
    return dict(proxy)


@pytest.mark.parametrize("folder", ["sidecar", "job", "shared", "injection"])
def test_a_folder_passes_the_newest_schemas(folder: str) -> None:
    assert validate(kustomize(folder)) == []


def test_the_validator_refuses_a_misspelled_field_and_a_wrong_type() -> None:
    deployment = only(kustomize("sidecar"), "Deployment")
    container = deployment["spec"]["template"]["spec"]["initContainers"][0]
    container["restartpolicy"] = container.pop("restartPolicy")
    assert len(validate([deployment])) == 1
    container["restartPolicy"] = container.pop("restartpolicy")
    deployment["spec"]["replicas"] = "two"
    assert len(validate([deployment])) == 1


def test_the_parser_refuses_broken_yaml() -> None:
    with pytest.raises(ValueError, match="ParserError"):
        parse("a: [")


@pytest.mark.parametrize("folder", PODS)
def test_a_pod_keeps_the_restricted_standard(folder: str) -> None:
    assert violations(_pod(folder)["spec"]) == []


def test_a_pod_that_breaks_the_restricted_standard_is_found() -> None:
    good = _pod("sidecar")["spec"]

    def broken(**changes: object) -> list[str]:
        pod = copy.deepcopy(good)
        pod["initContainers"][0]["securityContext"] |= changes
        return violations(pod)

    assert broken(runAsUser=0) == ["nanonets-proxy: runAsNonRoot"]
    assert broken(allowPrivilegeEscalation=True) == ["nanonets-proxy: allowPrivilegeEscalation"]
    assert broken(capabilities={"drop": ["NET_RAW"]}) == ["nanonets-proxy: capabilities"]
    assert broken(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}) == ["nanonets-proxy: capabilities"]
    assert broken(seccompProfile={"type": "Unconfined"}) == ["nanonets-proxy: seccompProfile"]
    assert broken(privileged=True) == ["nanonets-proxy: privileged"]
    assert violations(good | {"hostNetwork": True}) == ["hostNetwork"]
    assert violations(good | {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}) == ["volume v"]


@pytest.mark.parametrize("folder", ["sidecar", "job"])
def test_a_sidecar_starts_before_the_service_and_does_not_keep_a_job_alive(folder: str) -> None:
    proxy = _proxy(folder)
    assert proxy["restartPolicy"] == "Always"
    assert proxy["startupProbe"]["httpGet"] == {"path": "/readyz", "port": 8081}
    assert _pod(folder)["spec"]["initContainers"][0]["name"] == "nanonets-proxy"


def test_the_job_and_the_deployment_have_the_same_sidecar() -> None:
    assert _proxy("job") == _proxy("sidecar")
    assert _pod("job")["spec"]["volumes"] == _pod("sidecar")["spec"]["volumes"]


@pytest.mark.parametrize("folder", PODS)
def test_a_new_secret_reaches_the_running_pod(folder: str) -> None:
    spec, proxy = _pod(folder)["spec"], _proxy(folder)
    secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    mounts = {mount["mountPath"]: mount for mount in proxy["volumeMounts"] if mount["name"] in secrets}
    variables = {variable["name"]: variable.get("value", "") for variable in proxy["env"]}
    files = [value for name, value in variables.items() if name.endswith("_FILE")]
    assert len(files) == len(secrets) > 0
    for file in files:
        mount = mounts[file.rpartition("/")[0]]
        assert "subPath" not in mount
        assert mount["readOnly"]
        # Below /run/secrets itself, Kubernetes mounts the token of the service account.
        assert mount["mountPath"].startswith("/run/secrets/")
        # The image's user is not the owner: the mode admits its group (fsGroup), or all users.
        mode, groups = secrets[mount["name"]]["defaultMode"], spec["securityContext"].get("fsGroup")
        assert mode == (0o440 if groups == 10001 else 0o444)
    # No other container sees the key.
    others = [container for container in spec["containers"] if container["name"] != "nanonets-proxy"]
    assert (
        not {mount["name"] for container in others for mount in container.get("volumeMounts", [])} & secrets.keys()
    )


@pytest.mark.parametrize("folder", PODS)
def test_spooled_bodies_fit_into_the_pods_tmp(folder: str) -> None:
    spec, proxy = _pod(folder)["spec"], _proxy(folder)
    (name,) = [mount["name"] for mount in proxy["volumeMounts"] if mount["mountPath"] == "/tmp"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == name]
    assert volume["emptyDir"]["sizeLimit"] == "1Gi"
    assert {"name": "NANONETS_PROXY_SPOOL_TOTAL", "value": "768MiB"} in proxy["env"]


def test_the_shared_instance_is_killed_only_after_its_drain() -> None:
    variables = {variable["name"]: variable.get("value", "") for variable in _proxy("shared")["env"]}
    drain_s = sum(int(variables[f"NANONETS_PROXY_DRAIN_{name}"].removesuffix("s")) for name in ("DELAY", "TIMEOUT"))
    assert _pod("shared")["spec"]["terminationGracePeriodSeconds"] > drain_s


def test_service_policy_and_budget_select_the_pods_of_the_shared_instance() -> None:
    documents = kustomize("shared")
    labels = _pod("shared")["metadata"]["labels"]
    assert only(documents, "Service")["spec"]["selector"] == labels
    assert only(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert only(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    for constraint in _pod("shared")["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in _proxy("shared")["ports"]}
    assert [port["targetPort"] for port in only(documents, "Service")["spec"]["ports"]] == ["http"]
    ingress = [
        port["port"] for rule in only(documents, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]
    ]
    assert sorted(ingress) == sorted(ports.values())
