"""Calls the libraries of .venv-system. Each line of input is a command with its request, in JSON.

`tools.py` starts it, and has a function for each command, with its shapes.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cel
import helm_python
import jsonpatch
import kubernetes_validate
import yaml
from admission_cel import UntypedLiteral, as_maps

_KUBERNETES = "1.37"


def parse(text: str) -> list[Any]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def validate(documents: list[Any]) -> list[str]:
    problems = []
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        try:
            kubernetes_validate.validate(document, _KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            problems.append(f"{name}: {error.message}")
    return problems


def mutate(request: Any) -> Any:
    spec, pod = request["spec"], request["pod"]
    values: dict[str, Any] = {"object": pod, "params": request["params"]}
    if not all(cel.evaluate(condition["expression"], values) for condition in spec["matchConditions"]):
        return pod
    values["variables"] = {}
    for variable in spec["variables"]:  # each may use those before it
        values["variables"][variable["name"]] = cel.evaluate(variable["expression"], values)
    for mutation in spec["mutations"]:
        operations = cel.evaluate(as_maps(mutation["jsonPatch"]["expression"]), values)
        pod = jsonpatch.apply_patch(pod, operations)
    return pod


def admit(request: Any) -> list[str]:
    return [
        rule["message"]
        for rule in request["spec"]["validations"]
        if not cel.evaluate(rule["expression"], {"object": request["pod"]})
    ]


def helm(request: Any) -> Any:
    report = helm_python.lint(request["chart"], request["values"], strict=True)
    problems = [message["error"] for message in report["messages"] if message["severity"] > 1]
    try:
        with helm_python.Chart.load(request["chart"]) as chart:
            chart.validate_schema(request["values"])
            rendered = chart.render(request["values"], name=request["name"], namespace=request["namespace"])
    except helm_python.HelmError as error:
        return {"problems": [*problems, str(error)], "documents": []}
    texts = [text for name, text in sorted(rendered.items()) if name.endswith(".yaml")]
    return {"problems": problems, "documents": [document for text in texts for document in parse(text)]}


_COMMANDS: dict[str, Callable[[Any], Any]] = {
    function.__name__: function for function in (parse, validate, mutate, admit, helm)
}


def _answer(command: str, request: Any) -> Any:
    try:
        return {"result": _COMMANDS[command](request)}
    except (
        ValueError,
        TypeError,
        RuntimeError,
        UntypedLiteral,
        jsonpatch.JsonPatchException,
        yaml.YAMLError,
    ) as error:
        return {"error": re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(*json.loads(line))) + "\n")
        sys.stdout.flush()
