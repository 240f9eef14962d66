"""Turns the objects in the CEL of an admission mutation into maps.

The API server knows `JSONPatch{...}` and `Object.spec...{...}`. Other CEL libraries know maps only. Like the API
server, `as_maps` refuses an object whose type does not say where it stands, and an object without a type.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|(?:JSONPatch|Object(?:\.\w+)*)\{|\w+:(?!:)|\{|\}|[^"{}\w]+|\w+')
_ANY_PLACE = "JSONPatch.value"


class UntypedLiteral(Exception):
    """An object's type contradicts its place, or a literal has no type."""


@dataclass
class _Literal:
    type: str
    key: str = ""


def as_maps(expression: str) -> str:
    """Returns the expression with a map for each object.

    Raises:
        UntypedLiteral.
    """
    within: list[_Literal] = []
    result = []
    for token in _TOKEN.findall(expression):
        if token == "{":
            within.append(_Literal(""))
        elif token == "}":
            within.pop()
        elif token.endswith("{"):
            _check_type(token[:-1], within)
            within.append(_Literal(token[:-1]))
            token = "{"
        elif token.endswith(":") and token[0] != '"' and within:
            if not within[-1].type:
                raise UntypedLiteral(f"{token} is in a map, whose keys are strings")
            within[-1].key = token[:-1]
            token = f'"{token[:-1]}":'
        result.append(token)
    return "".join(result)


def _check_type(name: str, within: list[_Literal]) -> None:
    if not within:
        if name != "JSONPatch":
            raise UntypedLiteral(f"{name} is not part of a JSONPatch")
        return
    expected = f"{within[-1].type}.{within[-1].key}"
    if name != expected and not (expected == _ANY_PLACE and name.startswith("Object.")):
        raise UntypedLiteral(f"{name} is at the place of {expected}")
