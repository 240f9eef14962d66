"""Clients that people really use, through proxy and sandbox."""

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.process import proxy_to, sandbox


@pytest.mark.parametrize("clients_key", ["", "a-wrong-key"])
async def test_every_call_of_nanonetsclient_works_whatever_key_the_client_has(
    clients_key: str, run_every_client_call: Callable[[str, str], list[str]]
) -> None:
    with sandbox("--limit", "none") as upstream, proxy_to(upstream) as proxy:
        done = await asyncio.to_thread(run_every_client_call, f"{proxy.url}/api/v4", clients_key)
    assert len(done) >= 29
    assert {event["status"] for event in proxy.requests()} <= {200, 201, 204, 400, 404}


def curl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not on this machine; the raw-socket tests cover the same exchange")
    return subprocess.run([program, "-sS", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_curl_uploads_48_mb_with_expect_100_continue(tmp_path: Path) -> None:
    document = tmp_path / "scan.pdf"
    document.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 187_500)
    digest = hashlib.sha256(document.read_bytes()).hexdigest()
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        response = curl(
            "-v",
            "-F",
            f"file=@{document}",
            "-H",
            "Expect: 100-continue",
            f"{proxy.url}/api/v2/OCR/Model/m/LabelFile/",
        )
    assert "< HTTP/1.1 100 Continue" in response.stderr
    assert digest in response.stdout


def test_curl_speaks_http_1_0_to_it() -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        response = curl("-0", "-i", f"{proxy.url}/api/v4/workflows")
    assert response.stdout.endswith('{"workflows": []}')
    assert "Connection: close" in response.stdout
