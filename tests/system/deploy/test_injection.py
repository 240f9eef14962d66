"""The policies in deploy/kubernetes/injection, evaluated by a CEL library over sample pods."""

import copy

import pytest

from system.deploy.admission_cel import UntypedLiteral, as_maps
from system.deploy.pod_security import violations
from system.deploy.tools import Document, kustomize, mutate, only, refusals, selects, validate

pytestmark = pytest.mark.system

INJECTION = kustomize("injection")
POLICY = only(INJECTION, "MutatingAdmissionPolicy")["spec"]
BINDING = only(INJECTION, "MutatingAdmissionPolicyBinding")["spec"]
CHECK = only(INJECTION, "ValidatingAdmissionPolicy")["spec"]
CHECK_BINDING = only(INJECTION, "ValidatingAdmissionPolicyBinding")["spec"]
PARAMS = only(INJECTION, "ConfigMap")
EXAMPLE = only(kustomize("sidecar"), "Deployment")["spec"]["template"]
SIDECAR = EXAMPLE["spec"]["initContainers"][0]


def _pod(**spec: object) -> Document:
    """Returns a pod without the proxy, with the fields of `spec`."""
    pod = copy.deepcopy(EXAMPLE)
    del pod["spec"]["initContainers"], pod["spec"]["volumes"]
    pod["spec"] |= spec
    return {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": pod["metadata"] | {"name": "sample"}}


PLAIN = _pod()
WITH_OTHERS = _pod(
    initContainers=[{"name": "migrate", "image": "app"}], volumes=[{"name": "scratch", "emptyDir": {}}]
)


def test_a_pod_gets_the_container_and_the_volumes_of_the_example() -> None:
    mutated = mutate(POLICY, PLAIN, PARAMS)["spec"]
    assert mutated["initContainers"] == [SIDECAR]
    assert mutated["volumes"] == EXAMPLE["spec"]["volumes"]
    assert {key: mutated[key] for key in PLAIN["spec"]} == PLAIN["spec"]
    assert violations(mutated) == []


def test_the_sidecar_comes_before_other_init_containers_and_keeps_them() -> None:
    mutated = mutate(POLICY, WITH_OTHERS, PARAMS)
    assert [container["name"] for container in mutated["spec"]["initContainers"]] == ["nanonets-proxy", "migrate"]
    volumes = [volume["name"] for volume in mutated["spec"]["volumes"]]
    assert volumes == ["scratch", "nanonets-api-key", "nanonets-proxy-tmp"]
    assert validate([mutated]) == []


def test_an_annotation_moves_both_ports() -> None:
    pod = copy.deepcopy(PLAIN)
    pod["metadata"]["annotations"] = {"nanonets-proxy/port": "9080"}
    (sidecar,) = mutate(POLICY, pod, PARAMS)["spec"]["initContainers"]
    expected = copy.deepcopy(SIDECAR)
    variables = {variable["name"]: variable for variable in expected["env"]}
    variables["NANONETS_PROXY_LISTEN"]["value"] = "localhost:9080"
    variables["NANONETS_PROXY_ADMIN_LISTEN"]["value"] = ":9081"
    expected["ports"][0]["containerPort"] = 9081
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        expected[probe]["httpGet"]["port"] = 9081
    assert sidecar == expected


def test_a_port_that_is_no_number_is_an_error_which_refuses_the_pod() -> None:
    pod = copy.deepcopy(PLAIN)
    pod["metadata"]["annotations"] = {"nanonets-proxy/port": "http"}
    with pytest.raises(ValueError, match="int"):
        mutate(POLICY, pod, PARAMS)
    assert POLICY["failurePolicy"] == "Fail"


def test_a_second_evaluation_changes_nothing() -> None:
    mutated = mutate(POLICY, WITH_OTHERS, PARAMS)
    assert mutate(POLICY, mutated, PARAMS) == mutated


def test_the_image_comes_from_the_config_map() -> None:
    params = PARAMS | {"data": {"image": "registry.example/nanonets-proxy:7"}}
    assert mutate(POLICY, PLAIN, params)["spec"]["initContainers"][0]["image"] == params["data"]["image"]
    reference = BINDING["paramRef"]
    assert (reference["name"], reference["namespace"]) == (
        PARAMS["metadata"]["name"],
        PARAMS["metadata"]["namespace"],
    )


def test_a_pod_on_the_hosts_network_gets_no_sidecar_and_is_refused() -> None:
    pod = _pod(hostNetwork=True)
    assert mutate(POLICY, pod, PARAMS) == pod
    assert "hostNetwork" in refusals(CHECK, pod)[0]
    assert refusals(CHECK, mutate(POLICY, _pod(hostNetwork=False), PARAMS)) == []


def test_a_pod_without_its_sidecar_is_refused() -> None:
    assert refusals(CHECK, mutate(POLICY, PLAIN, PARAMS)) == []
    assert refusals(CHECK, mutate(POLICY, WITH_OTHERS, PARAMS)) == []
    for pod in (PLAIN, WITH_OTHERS, _pod(initContainers=[{"name": "nanonets-proxy", "image": "other"}])):
        (message,) = refusals(CHECK, pod)
        assert "has no sidecar" in message


def test_both_bindings_select_labelled_namespaces_and_pods_that_do_not_opt_out() -> None:
    resources = BINDING["matchResources"]
    assert resources == CHECK_BINDING["matchResources"]
    assert selects(resources["namespaceSelector"], {"nanonets-proxy/inject": "enabled", "team": "a"})
    assert not selects(resources["namespaceSelector"], {"team": "a"})
    assert selects(resources["objectSelector"], {})
    assert not selects(resources["objectSelector"], {"nanonets-proxy/inject": "disabled"})


def test_kyvernos_policy_is_the_same_policy() -> None:
    kyverno = only(kustomize("injection-kyverno"), "MutatingPolicy")["spec"]
    assert {key: kyverno[key] for key in ("failurePolicy", "matchConditions", "mutations")} == {
        key: POLICY[key] for key in ("failurePolicy", "matchConditions", "mutations")
    }
    assert kyverno["matchConstraints"] == POLICY["matchConstraints"] | BINDING["matchResources"]
    image, port = kyverno["variables"]
    assert port == POLICY["variables"][1]
    assert image == {"name": "image", "expression": f'"{PARAMS["data"]["image"]}"'}
    assert mutate(kyverno, PLAIN) == mutate(POLICY, PLAIN, PARAMS)


@pytest.mark.parametrize(
    "expression",
    [
        '[JSONPatch{op: "add", path: "/", value: Object.spec{env: Object.env{}}}]',
        '[Object.spec{name: "a"}]',
        '[JSONPatch{op: "add", path: "/", value: {name: "a"}}]',
    ],
)
def test_an_object_whose_type_contradicts_its_place_is_found(expression: str) -> None:
    with pytest.raises(UntypedLiteral):
        as_maps(expression)


def test_a_faulty_expression_is_found() -> None:
    broken = copy.deepcopy(POLICY)
    broken["mutations"][0]["jsonPatch"]["expression"] += " + ["
    with pytest.raises(ValueError, match="parse"):
        mutate(broken, PLAIN, PARAMS)
