"""The chart: linted, rendered by Helm for several value files, and valid."""

import copy
import re
import shutil
import subprocess
import textwrap
import tomllib
from pathlib import Path

import pytest

from support.commands.process import COMMAND, environment
from system.deploy.pod_security import violations
from system.deploy.tools import CHART, Document, helm, kustomize, only, parse, validate
from system.podman import ROOT

pytestmark = pytest.mark.system

VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted(CHART.glob("ci/*-values.yaml"))}
NOT_IN_KUBERNETES = "PodMonitor"
"""A custom resource of the Prometheus Operator. Kubernetes' schemas do not have it."""


def _values(name: str) -> Document:
    return parse(VALUES[name].read_text())[0] if name else {}


def _rendered(values: Document) -> list[Document]:
    problems, documents = helm(values)
    assert problems == []
    return documents


def _problems(values: Document, chart: Path = CHART) -> str:
    return "\n".join(helm(values, chart)[0])


def _pod(documents: list[Document]) -> Document:
    spec: Document = only(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", ["", *VALUES])
def test_the_chart_renders_valid_and_restricted_objects(name: str) -> None:
    documents = _rendered(_values(name))
    assert validate([document for document in documents if document["kind"] != NOT_IN_KUBERNETES]) == []
    assert violations(_pod(documents)) == []
    labels = only(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [only(documents, "Service")["spec"]["selector"]]
    for document in documents:
        if document["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            selectors.append(document["spec"]["selector"]["matchLabels"])
        if document["kind"] == "NetworkPolicy":
            selectors.append(document["spec"]["podSelector"]["matchLabels"])
    assert [selector for selector in selectors if not selector.items() <= labels.items()] == []


def test_the_defaults_are_the_shared_instance_of_the_manifests() -> None:
    documents, manifests = _rendered({}), kustomize("shared")
    own, theirs = _pod(documents), _pod(manifests)
    (container,), (their_container,) = own["containers"], theirs["containers"]
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    assert container == their_container
    assert own["volumes"].pop() == {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}}
    assert theirs["volumes"].pop() == {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}
    for field in ("securityContext", "terminationGracePeriodSeconds", "volumes", "enableServiceLinks"):
        assert own[field] == theirs[field]
    assert only(documents, "Service")["spec"]["ports"] == only(manifests, "Service")["spec"]["ports"]
    policies = [copy.deepcopy(only(each, "NetworkPolicy")["spec"]) for each in (documents, manifests)]
    for policy in policies:
        del policy["podSelector"]
    assert policies[0] == policies[1]


def test_the_program_accepts_the_settings_as_the_chart_writes_them(tmp_path: Path) -> None:
    values = _values("settings")
    documents = _rendered(values)
    text = only(documents, "ConfigMap")["data"]["nanonets-proxy.toml"]
    assert tomllib.loads(text) == values["settings"]
    file = tmp_path / "nanonets-proxy.toml"
    file.write_text(text)
    command = [*COMMAND, "config", "--changed", "--config", str(file)]
    env = environment(NANONETS_PROXY_CALLER_TOKENS=f"billing sha256:{'0' * 64}")
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in values["settings"].keys() - {"ledger_rows"}:  # its value is the default
        assert f"\n{name} = " in done.stdout


def test_changed_settings_restart_the_pods() -> None:
    sums = [
        only(_rendered({"settings": settings}), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        for settings in ({"max_wait": "2m"}, {"max_wait": "3m"})
    ]
    assert sums[0] != sums[1]


def test_the_sandbox_needs_no_secret() -> None:
    pod = _pod(_rendered(_values("sandbox")))
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]


def test_a_digest_replaces_the_tag() -> None:
    image = _pod(_rendered(_values("settings")))["containers"][0]["image"]
    assert image.startswith("registry.example.com/nanonets-proxy@sha256:0123")


def test_every_further_value_reaches_its_place() -> None:
    documents = _rendered(_values("everything"))
    pod = _pod(documents)
    (container,) = pod["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["image"] == "registry.example.com/nanonets-proxy:7"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert variables["NANONETS_API_KEY_FILE"].endswith("/token")
    assert variables["NANONETS_PROXY_CALLER_TOKENS_FILE"].endswith("/list")
    assert variables["NANONETS_PROXY_SPOOL_TOTAL"] == "3072MiB"
    assert variables["AWS_REGION"] == "eu-central-1"
    assert pod["terminationGracePeriodSeconds"] > 15 + 60
    assert {"name": "ledger", "mountPath": "/var/lib/nanonets-proxy"} in container["volumeMounts"]
    assert {"name": "ledger", "emptyDir": {}} in pod["volumes"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert "nodeAffinity" in pod["affinity"]
    assert pod["tolerations"][0]["key"] == "dedicated"
    ingress = only(documents, "NetworkPolicy")["spec"]["ingress"]
    assert ingress[0]["from"] == [{"podSelector": {"matchLabels": {"team": "documents"}}}]
    assert only(documents, "PodMonitor")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicaCont": 3}, "replicaCont"),
        ({"replicaCount": "two"}, "replicaCount"),
        ({"allowFrom": []}, "allowFrom"),
        ({"settings": {"listen": ":80"}}, "listen"),
        ({"settings": {"environments": {"a": {}}}}, "environments"),
        ({"settings": {"limits": {"a": 1}}}, "limits"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"apiKey": {"existingSecret": ""}}, "existingSecret"),
        ({"apiKey": {"value": "a-key-in-clear"}}, "value"),
    ],
    ids=str,
)
def test_the_schema_rejects_a_wrong_value_by_its_name(values: Document, named: str) -> None:
    assert named in _problems(values)


def _page_values() -> list[Document]:
    """Returns the values of each `helm` command on the page, and of each file of values."""
    page = (ROOT / "docs" / "deployment" / "helm.md").read_text()
    found = [parse(textwrap.dedent(block))[0] for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    for command in re.findall(r"\$ (helm (?:.*\\\n)*.*)", page):
        values: Document = {}
        for name, text in re.findall(r"--set ([\w.]+)=(\S*)", command):
            *parents, last = name.split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = _set_value(text)
        found.append(values)
    return found


def _set_value(text: str) -> object:
    """Returns a value of `--set`: a boolean, or a string."""
    return text == "true" if text in ("true", "false") else text


def test_the_values_on_the_page_install_the_chart() -> None:
    pages = _page_values()
    assert [bool(values) for values in pages] == [True, True, True, False]
    for values in pages:
        _rendered(values)


def test_the_linter_finds_a_broken_template(tmp_path: Path) -> None:
    chart = tmp_path / "nanonets-proxy"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "service.yaml").write_text("kind: {{ .Values.absent.value }}\n")
    assert "service.yaml" in _problems({}, chart)
