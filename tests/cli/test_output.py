"""What commands write to standard output."""

import io
import os
import sys

import pytest

from nanonets_proxy.cli import output


def test_text_that_the_encoding_of_standard_output_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    # A terminal's locale may lack a caller's name, and a file's name may be no UTF-8.
    for encoding, written in (("latin-1", b"\xfc \\u5c71 \\udcff"), ("utf-8", "ü 山 \\udcff".encode())):
        data = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding))
        output.write("ü 山 \udcff")
        assert data.getvalue() == written


def test_a_server_with_all_standard_files_needs_no_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "devnull", "/no/such/file")  # as in a root directory without /dev
    output.open_standard_files()
