"""Whether a proxy beside a command is certain to start."""

import sys
from pathlib import Path

import pytest

from nanonets_proxy.process.run.config import is_certain_to_start
from support.proxy_harness import serve_config

KEY = {"NANONETS_API_KEY": "a-key"}


def test_a_proxy_with_a_key_and_a_ledger_is_certain_to_start(tmp_path: Path) -> None:
    assert is_certain_to_start(serve_config(ledger=str(tmp_path / "usage.db")), KEY)


def test_a_proxy_with_a_ledger_is_not_certain_to_start_without_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "_sqlite3", None)
    assert is_certain_to_start(serve_config(), KEY)
    assert not is_certain_to_start(serve_config(ledger=str(tmp_path / "usage.db")), KEY)


@pytest.mark.parametrize("environ", [{}, {"NANONETS_API_KEY": "a:b"}, {**KEY, "AIOHTTP_NO_EXTENSIONS": "1"}])
def test_a_proxy_is_not_certain_to_start_without_a_key_or_a_strict_parser(environ: dict[str, str]) -> None:
    assert not is_certain_to_start(serve_config(), environ)
