"""The route of a request target: a template from a bounded set."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanonets_proxy.core.api.routes import OTHER_ROUTE, ROUTES, TEMPLATES, route_of
from nanonets_proxy.sandbox.app import OPERATIONS


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_known_path_has_its_template(template: str) -> None:
    path = re.sub(r"\{\w+\}", "4f1c-22", template)
    assert {route_of(path), route_of(path + "/"), route_of(path + "?async=true")} == {template}


SANDBOX_PATHS = sorted({operation.path for operation in OPERATIONS})


@pytest.mark.parametrize("path", SANDBOX_PATHS)
def test_each_operation_of_the_sandbox_is_known(path: str) -> None:
    assert path in TEMPLATES


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/api/v2/OCR/Model/a/LabelFile/b", "/api/v2/other"),
        ("/api/v2/OCR/Model//LabelFile", "/api/v2/other"),
        ("/api/v2/", "/api/v2/other"),
        ("/api/v4/workflows//", "/api/v4/other"),
        ("/api/v4", "/api/v4/other"),
        ("/api/v1/extract/results/a/b", "/api/v1/other"),
        ("/extract/a", OTHER_ROUTE),
        ("/api/v5/workflows", OTHER_ROUTE),
        ("/api", OTHER_ROUTE),
        ("/", OTHER_ROUTE),
        ("//api/v4/workflows", OTHER_ROUTE),
        ("*", OTHER_ROUTE),
        ("/API/v4/workflows", OTHER_ROUTE),
    ],
)
def test_an_unknown_path_has_a_route_for_others(target: str, route: str) -> None:
    assert route_of(target) == route


def test_escapes_of_unreserved_characters_do_not_hide_a_path() -> None:
    assert route_of("/api/v2/OCR/Model/a%2fb/%4CabelFile?x=%4C") == "/api/v2/OCR/Model/{model}/LabelFile"
    assert route_of("/api/v4/workflows%2Fw") == "/api/v4/other"


def test_a_long_id_is_an_id() -> None:
    assert route_of("/api/v4/workflows/" + "x" * 10_000) == "/api/v4/workflows/{workflow}"


@given(st.lists(st.sampled_from(("api", "v2", "v4", "OCR", "Model", "workflows", "documents", "", "x", "%4", "?"))))
@example(["%"])
def test_every_target_has_one_of_the_routes(segments: list[str]) -> None:
    assert route_of("/" + "/".join(segments)) in ROUTES
