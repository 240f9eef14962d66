"""Runs real clients that request an upgrade of the protocol, by default or by an option."""

import subprocess
from pathlib import Path

import pytest

from support.commands.process import proxy_to, sandbox

pytestmark = pytest.mark.system

_JAVA = """
import java.net.URI;
import java.net.http.*;

public class Call {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest get = HttpRequest.newBuilder(URI.create(args[0])).build();
        HttpRequest post = HttpRequest.newBuilder(URI.create(args[0]))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString("{}")).build();
        for (HttpRequest request : new HttpRequest[] {get, post, get}) {
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.version() + " " + response.statusCode());
        }
    }
}
"""


def test_javas_http_client_works_with_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "Call.java").write_text(_JAVA)
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        command = ["java", "Call.java", f"{proxy.url}/api/v4/workflows"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.split("\n")
    assert lines[0] == lines[2] == "HTTP_1_1 200", done
    assert lines[1] in ("HTTP_1_1 200", "HTTP_1_1 201", "HTTP_1_1 400"), done
    assert done.returncode == 0, done


def test_curl_works_when_it_asks_for_http_2() -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        command = [
            "curl",
            "--silent",
            "--http2",
            "--write-out",
            "%{http_version} %{http_code}",
            "--output",
            "/dev/null",
        ]
        done = subprocess.run(
            [*command, f"{proxy.url}/api/v4/workflows"], capture_output=True, text=True, check=False
        )
    assert done.stdout == "1.1 200", done
