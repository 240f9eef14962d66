"""Generates the Helm chart's values.yaml and README.md. `make helm-chart` writes them.

The chart's values.schema.json is the one definition of its values.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "nanonets-proxy"
SCHEMA = CHART / "values.schema.json"
_INTRO = Path(__file__).with_name("helm_chart_intro.md")
_WIDTH = 110
_HIDDEN = {"global"}  # Helm adds it


def _properties() -> dict[str, Any]:
    properties: dict[str, Any] = json.loads(SCHEMA.read_text())["properties"]
    return {name: value for name, value in properties.items() if name not in _HIDDEN}


def values_yaml() -> str:
    """Returns the text of values.yaml: each value with its description and its default."""
    lines = ["# Generated from values.schema.json by `make helm-chart`. README.md has the same as a table."]
    for name, value in _properties().items():
        lines += ["", *_value_lines(name, value, indent="")]
    return "\n".join(lines) + "\n"


def _value_lines(name: str, value: Any, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(value["description"], _WIDTH - len(indent)):
        yield f"{indent}# {line}"
    if "default" in value:
        yield f"{indent}{name}: {_json(value['default'])}"
        return
    yield f"{indent}{name}:"
    for inner_name, inner in value["properties"].items():
        yield from _value_lines(inner_name, inner, f"{indent}  ")


def readme() -> str:
    """Returns the text of README.md: the introduction, and a table of all values."""
    rows = [
        f"| `{name}` | {value['type']} | `{_json(value['default'])}` | {value['description']} |"
        for name, value in _leaves(_properties())
    ]
    return "\n".join([_INTRO.read_text(), "| value | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _leaves(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in properties.items():
        if "default" in value:
            yield f"{prefix}{name}", value
        else:
            yield from _leaves(value["properties"], f"{prefix}{name}.")


def _json(value: Any) -> str:
    """Returns JSON, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    (CHART / "values.yaml").write_text(values_yaml())
    (CHART / "README.md").write_text(readme())
