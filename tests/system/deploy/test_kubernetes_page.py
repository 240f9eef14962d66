"""Runs the commands of docs/deployment/kubernetes.md as far as that is possible without a cluster."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from system.deploy.tools import Document, kustomize, only, parse, validate
from system.podman import ROOT

pytestmark = pytest.mark.system

PAGE = ROOT / "docs" / "deployment" / "kubernetes.md"
API_KEY = "k8s-3f1c9a7e5b2d4860"


def _commands() -> list[list[str]]:
    """Returns the words of each command on the page, up to a pipe."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = re.findall(r"\$ ((?:.*\\\n)*.*)", "".join(blocks))
    return [shlex.split(line.replace("\\\n", " ").partition("|")[0]) for line in lines]


COMMANDS = _commands()


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if "secret" in command], ids=lambda command: command[-1]
)
def test_the_commands_make_the_secrets_that_the_pods_mount(command: list[str], tmp_path: Path) -> None:
    for name in ("nanonets_api_key", "new_key", "callers"):
        (tmp_path / name).write_text(API_KEY)
    offline = [word for word in command if not word.startswith(("--dry-run", "-o", "yaml"))]
    done = subprocess.run(
        [*offline, "--dry-run=client", "-o", "yaml"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (secret,) = parse(done.stdout)
    assert validate([secret]) == []
    mounted: dict[str, Document] = {}
    for folder in ("sidecar", "shared"):
        for volume in only(kustomize(folder), "Deployment")["spec"]["template"]["spec"]["volumes"]:
            if "secret" in volume:
                mounted[volume["secret"]["secretName"]] = volume["secret"]
    assert secret["metadata"]["name"] in mounted
    (file,) = secret["data"]
    variables = [
        variable.get("value", "")
        for folder, place in (("sidecar", "initContainers"), ("shared", "containers"))
        for variable in only(kustomize(folder), "Deployment")["spec"]["template"]["spec"][place][0]["env"]
    ]
    assert [value for value in variables if value.endswith(f"/{file}")]


def test_every_object_and_container_of_a_command_exists() -> None:
    documents = [document for folder in ("sidecar", "job", "shared") for document in kustomize(folder)]
    objects = {f"{document['kind'].lower()}/{document['metadata']['name']}" for document in documents}
    named = {word for command in COMMANDS for word in command if re.fullmatch(r"(?:deployment|job)/[a-z-]+", word)}
    assert {"deployment/example", "job/example", "deployment/nanonets-proxy"} <= named <= objects
    template = only(kustomize("sidecar"), "Deployment")["spec"]["template"]["spec"]
    containers = {each["name"] for each in (*template["initContainers"], *template["containers"])}
    assert {command[command.index("-c") + 1] for command in COMMANDS if "logs" in command} == containers


def test_every_folder_of_a_command_renders_and_every_file_is_there() -> None:
    folders = {command[command.index("-k") + 1] for command in COMMANDS if "-k" in command}
    prefix = "deploy/kubernetes/"
    assert {folder.removeprefix(prefix) for folder in folders} == {
        "sidecar",
        "job",
        "shared",
        "injection",
        "injection-kyverno",
    }
    for folder in folders:
        assert kustomize(folder.removeprefix(prefix))
    files = [command[command.index("-f") + 1] for command in COMMANDS if "-f" in command]
    assert [file for file in files if file != "-" and not (ROOT / file).is_file()] == []


def test_the_labels_that_a_command_sets_are_those_of_the_policies() -> None:
    labels = {command[-1] for command in COMMANDS if "label" in command}
    selector = only(kustomize("injection"), "MutatingAdmissionPolicyBinding")["spec"]["matchResources"]
    policy = only(kustomize("shared"), "NetworkPolicy")["spec"]["ingress"][0]["from"][0]
    wanted = [selector["namespaceSelector"]["matchLabels"], policy["namespaceSelector"]["matchLabels"]]
    assert labels == {f"{name}={value}" for pairs in wanted for name, value in pairs.items()}
