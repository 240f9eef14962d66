"""PyPI's `docstrange`, through the proxy to the sandbox, with a caller's token in the place of the key."""

import json
import subprocess
from pathlib import Path

import pytest

from support.commands.process import proxy_to, sandbox

pytestmark = pytest.mark.system

_PYTHON = Path(__file__).parents[2] / ".venv-system" / "bin" / "python"
_CLIENT = """
import json, sys
from docstrange import DocumentExtractor

extractor = DocumentExtractor(api_key="not-the-key")
extractor.processors[0].api_url = f"{sys.argv[1]}/extract"
result = extractor.extract(sys.argv[2])
print(json.dumps([result.extract_markdown(), result.extract_html(), result.extract_data()]))
"""


def _extract(url: str, document: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(_PYTHON), "-c", _CLIENT, url, str(document)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_client_gets_a_document_through_the_proxy(tmp_path: Path) -> None:
    document = tmp_path / "scan.pdf"
    document.write_bytes(b"%PDF-1.7 scan")
    with sandbox("--limit", "none") as upstream, proxy_to(upstream, "--preset", "docstrange") as proxy:
        done = _extract(proxy.url, document)
        proxy.end()
    assert done.returncode == 0, done.stderr
    markdown, html, data = json.loads(done.stdout)
    assert markdown.startswith("# ")
    assert html == "<h1>scan.pdf</h1>"
    assert data["document"]["file"] == markdown.removeprefix("# ")
    assert [(event["path"], event["status"], event["scope"]) for event in proxy.requests()] == [
        ("/extract", 200, "extract")
    ] * 3


def test_the_client_says_that_the_daily_quota_is_used_up(tmp_path: Path) -> None:
    document = tmp_path / "scan.pdf"
    document.write_bytes(b"%PDF-1.7 scan")
    with sandbox("--limit", "1/1day") as upstream, proxy_to(upstream, "--preset", "docstrange") as proxy:
        done = _extract(proxy.url, document)
    assert done.returncode != 0
    assert "Rate limit exceeded" in done.stderr
