"""Finds the log events that the source code emits, by its syntax trees."""

import ast
import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import nanonets_proxy
from nanonets_proxy.core.keys.key_records import KeyEventKind

PACKAGE: Final = Path(nanonets_proxy.__file__).parent
_LEVELS: Final = ("debug", "info", "warning", "error", "critical", "exception")
_ALERT_PARAMETERS: Final = frozenset({"about", "kind", "lasting", "log_always"})
_ALERT_FIELDS: Final = frozenset({"times", "advice"})


@dataclass
class Emitted:
    """An event: the levels and fields that the calls name, and whether there may be more fields."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    has_more_fields: bool = False


@functools.cache
def find() -> dict[str, Emitted]:
    """Returns the events by name. Takes a second."""
    events: dict[str, Emitted] = defaultdict(Emitted)
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        constants = dict(_constants(tree))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            for name, level in _names_and_levels(call, constants):
                _note(events[name], call, level)
        for line in _ready_lines(tree):
            event = events[line.pop("event")]
            event.levels.add(line.pop("level"))
            event.fields |= line.keys() - {"timestamp"}
    return dict(events)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the module's constants that are texts."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Constant):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                yield target.id, node.value.value


def _ready_lines(tree: ast.Module) -> Iterator[dict[str, Any]]:
    """Yields the JSON lines that the module writes itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes) and b'"event":"' in node.value:
            yield json.loads(re.sub(rb"%[a-z]", b"0", node.value))


def _names_and_levels(call: ast.Call, constants: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the events that a call emits. "" is a level that only the running program knows."""
    function, arguments = call.func, call.args
    if not arguments:
        return
    first = ast.unparse(arguments[0])
    name = _text(arguments[0], constants)
    if isinstance(function, ast.Attribute):
        receiver = ast.unparse(function.value)
        is_log = receiver.endswith(("log", "get_logger()"))
        if function.attr in _LEVELS and is_log and name is not None:
            yield name, "error" if function.attr == "exception" else function.attr
        elif function.attr == "report" and receiver.endswith("alerts") and name is not None:
            yield name, "alert"
        elif function.attr == "log" and is_log and len(arguments) > 1:
            yield _text(arguments[1], constants) or "?", ""
        elif function.attr in _LEVELS and is_log and receiver != "self._log":
            yield "?", ""
    elif first == "kind.value":
        yield from ((kind.value, "") for kind in KeyEventKind)
    elif isinstance(function, ast.Name) and function.id == "event_writer" and name is not None:
        yield name, ""


def _text(node: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return constants.get(node.id) if isinstance(node, ast.Name) else None


def _note(event: Emitted, call: ast.Call, level: str) -> None:
    names = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    event.has_more_fields |= level == "" or any(keyword.arg is None for keyword in call.keywords)
    if level == "alert":
        names = (names - _ALERT_PARAMETERS) | _ALERT_FIELDS
        level = "warning"
    event.levels |= {level} - {""}
    event.fields |= names
