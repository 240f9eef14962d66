"""Compares README's table of errors with the modules of errors."""

import re
from http import HTTPStatus
from pathlib import Path

import pytest

from nanonets_proxy.errors import ProxyError
from support.error_classes import VISIBLE

README = Path(__file__).parents[2] / "README.md"


def _cause(kind: type[ProxyError]) -> str:
    return (kind.__doc__ or "").partition("\n")[0].rstrip(".")


def test_the_readme_lists_every_error_with_status_code_and_cause() -> None:
    rows = sorted((kind.status, kind.code, _cause(kind)) for kind in VISIBLE)
    table = [f"| {status} | `{code}` | {cause} |" for status, code, cause in rows]
    found = [line for line in README.read_text().splitlines() if re.match(r"\| \d{3} \| `", line)]
    assert found == table, "copy the expected lines into README.md"


def test_every_code_belongs_to_one_error() -> None:
    codes = [kind.code for kind in VISIBLE]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", VISIBLE)
def test_every_error_has_a_standard_status_and_a_proxy_status_type(kind: type[ProxyError]) -> None:
    assert 400 <= HTTPStatus(kind.status) < 600
    assert re.fullmatch(r"[a-z_]+", kind.proxy_error)
    assert _cause(kind)
