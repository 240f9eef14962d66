"""All cases, in their groups."""

from typing import Final

from conformance.cases import (
    connections,
    framing_attacks,
    http_1_0,
    malformed_heads,
    malformed_responses,
    rejections,
    request_bodies,
    request_fields,
    response_bodies,
    response_heads,
    targets_and_methods,
    upstream_failures,
)
from conformance.steps import Case

_MODULES: Final = (
    targets_and_methods,
    request_fields,
    request_bodies,
    framing_attacks,
    malformed_heads,
    rejections,
    response_bodies,
    response_heads,
    http_1_0,
    connections,
    malformed_responses,
    upstream_failures,
)
GROUPS: Final[dict[str, list[Case]]] = {
    title: cases for module in _MODULES for title, cases in module.GROUPS.items()
}
CASES: Final = [case for group in GROUPS.values() for case in group]
