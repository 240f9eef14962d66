"""The policies in deploy/kubernetes/injection, evaluated by a CEL library over sample pods."""

import pytest

from system.deploy.admission_cel import UntypedLiteral, as_maps
from system.deploy.pod_security import violations
from system.deploy.tools import Document, kustomize, mutate, only, refusals, selects, validate

pytestmark = pytest.mark.system


def _of_injection(kind: str) -> Document:
    """Returns a document of deploy/kubernetes/injection. No tool runs before the first test."""
    return only(kustomize("injection"), kind)


def _policy() -> Document:
    spec: Document = _of_injection("MutatingAdmissionPolicy")["spec"]
    return spec


def _binding() -> Document:
    spec: Document = _of_injection("MutatingAdmissionPolicyBinding")["spec"]
    return spec


def _check() -> Document:
    spec: Document = _of_injection("ValidatingAdmissionPolicy")["spec"]
    return spec


def _params() -> Document:
    return _of_injection("ConfigMap")


def _example() -> Document:
    template: Document = only(kustomize("sidecar"), "Deployment")["spec"]["template"]
    return template


def _sidecar() -> Document:
    container: Document = _example()["spec"]["initContainers"][0]
    return container


def _pod(**spec: object) -> Document:
    """Returns a pod without the proxy, with the fields of `spec`."""
    pod = _example()
    del pod["spec"]["initContainers"], pod["spec"]["volumes"]
    pod["spec"] |= spec
    return {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": pod["metadata"] | {"name": "sample"}}


def _with_others() -> Document:
    return _pod(initContainers=[{"name": "migrate", "image": "app"}], volumes=[{"name": "scratch", "emptyDir": {}}])


def test_a_pod_gets_the_container_and_the_volumes_of_the_example() -> None:
    mutated = mutate(_policy(), _pod(), _params())["spec"]
    assert mutated["initContainers"] == [_sidecar()]
    assert mutated["volumes"] == _example()["spec"]["volumes"]
    assert {key: mutated[key] for key in _pod()["spec"]} == _pod()["spec"]
    assert violations(mutated) == []


def test_the_sidecar_comes_before_other_init_containers_and_keeps_them() -> None:
    mutated = mutate(_policy(), _with_others(), _params())
    assert [container["name"] for container in mutated["spec"]["initContainers"]] == ["nanonets-proxy", "migrate"]
    volumes = [volume["name"] for volume in mutated["spec"]["volumes"]]
    assert volumes == ["scratch", "nanonets-api-key", "nanonets-proxy-tmp"]
    assert validate([mutated]) == []


def test_an_annotation_moves_both_ports() -> None:
    pod = _pod()
    pod["metadata"]["annotations"] = {"nanonets-proxy/port": "9080"}
    (sidecar,) = mutate(_policy(), pod, _params())["spec"]["initContainers"]
    expected = _sidecar()
    variables = {variable["name"]: variable for variable in expected["env"]}
    variables["NANONETS_PROXY_LISTEN"]["value"] = "localhost:9080"
    variables["NANONETS_PROXY_ADMIN_LISTEN"]["value"] = ":9081"
    expected["ports"][0]["containerPort"] = 9081
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        expected[probe]["httpGet"]["port"] = 9081
    assert sidecar == expected


def test_annotations_set_the_resources_and_name_the_settings() -> None:
    pod = _pod()
    pod["metadata"]["annotations"] = {
        "nanonets-proxy/cpu-request": "100m",
        "nanonets-proxy/cpu-limit": "2",
        "nanonets-proxy/memory-request": "128Mi",
        "nanonets-proxy/memory-limit": "1Gi",
        "nanonets-proxy/settings": "proxy-settings",
    }
    mutated = mutate(_policy(), pod, _params())
    (sidecar,) = mutated["spec"]["initContainers"]
    assert sidecar == _sidecar() | {
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "envFrom": [{"configMapRef": {"name": "proxy-settings"}}],
    }
    assert validate([mutated]) == []


@pytest.mark.parametrize("name", ["cpu-request", "cpu-limit", "memory-request", "memory-limit"])
def test_each_annotation_of_a_resource_leaves_the_others(name: str) -> None:
    pod = _pod()
    pod["metadata"]["annotations"] = {f"nanonets-proxy/{name}": "300M", "team.example/note": "x"}
    (sidecar,) = mutate(_policy(), pod, _params())["spec"]["initContainers"]
    expected = _sidecar()
    resource, _, kind = name.partition("-")
    expected["resources"][f"{kind}s"][resource] = "300M"
    assert sidecar == expected


def test_a_port_that_is_no_number_is_an_error_which_refuses_the_pod() -> None:
    pod = _pod()
    pod["metadata"]["annotations"] = {"nanonets-proxy/port": "http"}
    with pytest.raises(ValueError, match="int"):
        mutate(_policy(), pod, _params())
    assert _policy()["failurePolicy"] == "Fail"


def test_a_second_evaluation_changes_nothing() -> None:
    mutated = mutate(_policy(), _with_others(), _params())
    assert mutate(_policy(), mutated, _params()) == mutated


def test_the_image_comes_from_the_config_map() -> None:
    params = _params() | {"data": {"image": "registry.example/nanonets-proxy:7"}}
    assert mutate(_policy(), _pod(), params)["spec"]["initContainers"][0]["image"] == params["data"]["image"]
    reference = _binding()["paramRef"]
    assert (reference["name"], reference["namespace"]) == (
        _params()["metadata"]["name"],
        _params()["metadata"]["namespace"],
    )


def test_a_pod_on_the_hosts_network_gets_no_sidecar_and_is_refused() -> None:
    pod = _pod(hostNetwork=True)
    assert mutate(_policy(), pod, _params()) == pod
    assert "hostNetwork" in refusals(_check(), pod)[0]
    assert refusals(_check(), mutate(_policy(), _pod(hostNetwork=False), _params())) == []


def test_a_pod_without_its_sidecar_is_refused() -> None:
    assert refusals(_check(), mutate(_policy(), _pod(), _params())) == []
    assert refusals(_check(), mutate(_policy(), _with_others(), _params())) == []
    for pod in (_pod(), _with_others(), _pod(initContainers=[{"name": "nanonets-proxy", "image": "other"}])):
        (message,) = refusals(_check(), pod)
        assert "has no sidecar" in message


def test_both_bindings_select_labelled_namespaces_and_pods_that_do_not_opt_out() -> None:
    resources = _binding()["matchResources"]
    assert resources == _of_injection("ValidatingAdmissionPolicyBinding")["spec"]["matchResources"]
    assert selects(resources["namespaceSelector"], {"nanonets-proxy/inject": "enabled", "team": "a"})
    assert not selects(resources["namespaceSelector"], {"team": "a"})
    assert selects(resources["objectSelector"], {})
    assert not selects(resources["objectSelector"], {"nanonets-proxy/inject": "disabled"})


def test_kyvernos_policy_is_the_same_policy() -> None:
    kyverno = only(kustomize("injection-kyverno"), "MutatingPolicy")["spec"]
    assert {key: kyverno[key] for key in ("failurePolicy", "matchConditions", "mutations")} == {
        key: _policy()[key] for key in ("failurePolicy", "matchConditions", "mutations")
    }
    assert kyverno["matchConstraints"] == _policy()["matchConstraints"] | _binding()["matchResources"]
    image, *others = kyverno["variables"]
    assert others == _policy()["variables"][1:]
    assert image == {"name": "image", "expression": f'"{_params()["data"]["image"]}"'}
    assert mutate(kyverno, _pod()) == mutate(_policy(), _pod(), _params())


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
    broken = _policy()
    broken["mutations"][0]["jsonPatch"]["expression"] += " + ["
    with pytest.raises(ValueError, match="parse"):
        mutate(broken, _pod(), _params())
