"""curl, through proxy and sandbox."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from support.commands.process import proxy_to, sandbox
from support.documents import pdf

pytestmark = pytest.mark.system


def curl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60, check=True)


def test_curl_uploads_48_mb_with_expect_100_continue(tmp_path: Path) -> None:
    document = tmp_path / "scan.pdf"
    document.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 187_500)
    digest = hashlib.sha256(document.read_bytes()).hexdigest()
    url = "/api/v2/OCR/Model/m/LabelFile/"
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        response = curl("-v", "-F", f"file=@{document}", "-H", "Expect: 100-continue", f"{proxy.url}{url}")
    assert "< HTTP/1.1 100 Continue" in response.stderr
    assert digest in response.stdout


def test_the_pages_of_a_pdf_that_curl_uploads_are_counted(tmp_path: Path) -> None:
    document = tmp_path / "scan.pdf"
    document.write_bytes(pdf(7, padding=3_000_000))
    url = "/api/v2/OCR/Model/m/LabelFile/"
    with (
        sandbox("--latency", "2s") as upstream,
        proxy_to(upstream, "--limits", "v2:predict:m 20 pages/hour") as proxy,
    ):
        for _ in range(2):
            curl("-F", f"file=@{document}", f"{proxy.url}{url}")
        refused = curl("-F", f"file=@{document}", f"{proxy.url}{url}", "-H", "Prefer: wait=1")
        proxy.wait_for("request", status=429)
    assert "rate_limit_exceeded" in refused.stdout
    assert [event.get("pages") for event in proxy.requests()][:2] == [7, 7], proxy.events


def test_curl_gets_a_response_over_http_1_0() -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        response = curl("-0", "-i", f"{proxy.url}/api/v4/workflows")
    assert response.stdout.endswith('{"workflows": []}')
    assert "Connection: close" in response.stdout
