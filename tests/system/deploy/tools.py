"""Renders, parses and validates manifests, and evaluates admission policies, without a cluster."""

import atexit
import copy
import functools
import json
import subprocess
from pathlib import Path
from typing import Any, Final

from system.podman import ROOT, TOOLS

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
CHART: Final = ROOT / "deploy" / "helm" / "nanonets-proxy"
_DRIVER: Final = Path(__file__).with_name("driver.py")
_TIMEOUT_S: Final = 60.0

Document = dict[str, Any]


@functools.cache
def _driver() -> "subprocess.Popen[str]":
    """Returns the driver's process. It ends with its input, at the end of the tests."""
    command = [str(TOOLS / "python"), str(_DRIVER)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    atexit.register(process.stdin.close)
    return process


def _call(command: str, request: Any) -> Any:
    """Raises ValueError with the driver's error."""
    process = _driver()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([command, request]) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the driver has ended; its error is above"
    answer = json.loads(line)
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["result"]


def parse(text: str) -> list[Document]:
    """Returns the documents of a YAML text."""
    documents: list[Document] = _call("parse", text)
    return documents


def kustomize(folder: str) -> list[Document]:
    """Returns the documents of a folder in deploy/kubernetes."""
    return copy.deepcopy(_kustomize(folder))


@functools.cache
def _kustomize(folder: str) -> list[Document]:
    command = ["kubectl", "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


def only(documents: list[Document], kind: str) -> Document:
    """Returns the one document of a kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def validate(documents: list[Document]) -> list[str]:
    """Returns what contradicts Kubernetes' schemas."""
    problems: list[str] = _call("validate", documents)
    return problems


def mutate(spec: Document, pod: Document, params: Document | None = None) -> Document:
    """Returns the pod as a mutating policy changes it. Raises ValueError if an expression fails."""
    mutated: Document = _call("mutate", {"spec": spec, "pod": pod, "params": params})
    return mutated


def refusals(spec: Document, pod: Document) -> list[str]:
    """Returns the messages with which a validating policy refuses the pod."""
    messages: list[str] = _call("admit", {"spec": spec, "pod": pod})
    return messages


def helm(values: Document, chart: Path = CHART) -> tuple[list[str], list[Document]]:
    """Returns the problems of the chart with these values, and what it renders."""
    request = {"chart": str(chart), "values": values, "name": "nanonets-proxy", "namespace": "team"}
    answer = _call("helm", request)
    return answer["problems"], answer["documents"]


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Returns whether a label selector matches the labels."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "NotIn"
        wanted = wanted and labels.get(rule["key"]) not in rule["values"]
    return bool(wanted)
