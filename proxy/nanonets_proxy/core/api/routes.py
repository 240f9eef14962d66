"""The route of a request: the path's template, such as `/api/v2/OCR/Model/{model}/LabelFile`.

Metrics and the usage ledger count by route. A path holds ids of the caller's choice, so paths would be unbounded,
while routes are not. The table has the known paths of the Nanonets API and of DocStrange; any other path has one of
a few routes that end with `other`. Methods do not matter: a known path that is called with a wrong method still has
its route.
"""

from collections.abc import Iterable
from typing import Final

from nanonets_proxy.core.http.target import decode_unreserved

_FAMILIES: Final = ("OCR", "ImageCategorization", "ObjectDetection")
_MODEL_CALLS: Final = ("LabelFile", "LabelUrls", "UploadFile", "UploadUrls", "Train")
_INFERENCES: Final = "/api/v2/Inferences/Model/{model}/ImageLevelInferences"
_WORKFLOW: Final = "/api/v4/workflows/{workflow}"
_DOCUMENT: Final = _WORKFLOW + "/documents/{document}"
_PAGE: Final = _DOCUMENT + "/pages/{page}"
_TABLE: Final = _PAGE + "/tables/{table}"
_RESULTS: Final = "/api/v1/extract/results"
STREAM: Final = "/api/v1/extract/stream"
"""Its responses are event streams."""

TEMPLATES: Final[tuple[str, ...]] = (
    "/api/v2/OCR/FullText",
    "/api/v2/ImageCategorization/LabelFile",
    "/api/v2/ImageCategorization/LabelUrls",
    *(f"/api/v2/{family}/Model" for family in _FAMILIES),
    *(f"/api/v2/{family}/Model/{{model}}" for family in _FAMILIES),
    *(f"/api/v2/{family}/Model/{{model}}/{call}" for family in _FAMILIES for call in _MODEL_CALLS),
    _INFERENCES,
    _INFERENCES + "/{page}",
    "/api/v4/workflow_types",
    "/api/v4/workflows",
    _WORKFLOW,
    _WORKFLOW + "/fields",
    _WORKFLOW + "/fields/{field}",
    _WORKFLOW + "/settings",
    _WORKFLOW + "/documents",
    _DOCUMENT,
    *(f"{_DOCUMENT}/{part}" for part in ("fields", "tables", "original", "verify")),
    _PAGE,
    _PAGE + "/fields",
    _PAGE + "/fields/{field}",
    _PAGE + "/fields/{field}/verify",
    _PAGE + "/tables",
    _TABLE,
    _TABLE + "/verify",
    _TABLE + "/cells",
    _TABLE + "/cells/{cell}",
    _TABLE + "/cells/{cell}/verify",
    # DocStrange, as its published clients call it.
    "/extract",
    *(f"/api/v1/extract/{call}" for call in ("sync", "async", "batch")),
    STREAM,
    _RESULTS,
    _RESULTS + "/{record}",
    *(f"/api/v1/classify/{call}" for call in ("sync", "batch")),
)
OTHER_ROUTE: Final = "/other"
_OTHER_BY_VERSION: Final = {"v1": "/api/v1/other", "v2": "/api/v2/other", "v4": "/api/v4/other"}
ROUTES: Final[tuple[str, ...]] = (*TEMPLATES, *_OTHER_BY_VERSION.values(), OTHER_ROUTE)
"""Every value that `route_of` returns."""


class _Node:
    """The paths that share their first segments."""

    __slots__ = ("children", "placeholder", "route")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.placeholder: _Node | None = None
        self.route: str | None = None


def _tree(templates: Iterable[str]) -> _Node:
    root = _Node()
    for template in templates:
        node = root
        for segment in template.split("/")[1:]:
            if not segment.startswith("{"):
                node = node.children.setdefault(segment, _Node())
            else:
                node.placeholder = node.placeholder or _Node()
                node = node.placeholder
        node.route = template
    return root


_ROOT: Final = _tree(TEMPLATES)


def route_of(target: str) -> str:
    """Returns the route of a request target in origin form (RFC 9112 §3.2.1), one of `ROUTES`.

    Ignores the query and a slash at the end. Compares escapes as scope rules do (RFC 3986 §6.2.2.2).
    """
    path = target.partition("?")[0]
    if "%" in path:
        path = decode_unreserved(path)
    segments = path.split("/")
    if not segments[-1]:
        segments.pop()
    node = _ROOT
    for segment in segments[1:]:
        child = node.children.get(segment) or (node.placeholder if segment else None)
        if child is None:
            return _other(segments)
        node = child
    return node.route or _other(segments)


def _other(segments: list[str]) -> str:
    if len(segments) > 2 and segments[1] == "api":
        return _OTHER_BY_VERSION.get(segments[2], OTHER_ROUTE)
    return OTHER_ROUTE
