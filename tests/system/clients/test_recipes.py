"""The recipes of docs/clients.md, with the published clients of PyPI and npm."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.commands.clients_page import recipe
from support.commands.process import COMMAND, END_S, environment

pytestmark = pytest.mark.system

CLIENTS = Path(__file__).parents[3] / ".system" / "clients"
IMAGE_CLASSIFICATION = "npm @nanonets/image-classification"


def run_beside(folder: Path, *command: str, **env: str) -> str:
    """Returns the output of a command under `nanonets-proxy run`, against the simulated API."""
    done = subprocess.run(
        [*COMMAND, "run", "--sandbox", "--", *command],
        cwd=folder,
        env=environment(NODE_PATH=str(CLIENTS / "node_modules"), **env),
        capture_output=True,
        text=True,
        timeout=END_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pypi_nanonets(tmp_path: Path) -> None:
    python = str(CLIENTS / "venv" / "bin" / "python")
    printed = run_beside(tmp_path, python, "-W", "ignore", "-c", recipe("PyPI nanonets", "python"))
    assert "https://files.example/invoice.pdf" in printed


def test_npm_nanonets_obeys_http_proxy(tmp_path: Path) -> None:
    (tmp_path / "predict.js").write_text(recipe("npm nanonets", "js"))
    printed = run_beside(tmp_path, "sh", "-c", recipe("npm nanonets", "sh"))
    assert '"message": "Success"' in printed


def test_a_request_to_another_host_by_http_proxy_is_rejected(tmp_path: Path) -> None:
    script = "http_proxy=$NANONETS_BASE_URL curl -sS http://other.example/api/v4/workflows"
    assert "forbidden" in run_beside(tmp_path, "sh", "-c", script)


def test_axios_of_n8n(tmp_path: Path) -> None:
    assert run_beside(tmp_path, "node", "-e", recipe("n8n", "js")) == "{ workflows: [] }\n"


def test_npm_image_classification_trusts_the_proxy_in_the_place_of_nanonets(tmp_path: Path) -> None:
    """In network and mount namespaces of its own, whose /etc/hosts has the name, as that of a container."""
    certificate, run_node = re.split(r"\n(?=NODE_EXTRA)", recipe(IMAGE_CLASSIFICATION, "sh"))
    subprocess.run(["sh", "-c", certificate], cwd=tmp_path, check=True, capture_output=True)
    settings = tomllib.loads(recipe(IMAGE_CLASSIFICATION, "toml"))
    assert settings["listen"] == [":443"]
    (tmp_path / "nanonets-proxy.toml").write_text(recipe(IMAGE_CLASSIFICATION, "toml"))
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n172.16.0.1 app.nanonets.com\n")
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    (tmp_path / "classify.mjs").write_text(
        'import ImageClassification from "@nanonets/image-classification";\n'
        'const client = new ImageClassification("any-key", "any-id");\n'
        "console.log(JSON.stringify(await client.getModelDetails()));\n"
        'console.log(JSON.stringify(await client.predictUsingUrls(["https://files.example/a.jpg"])));\n'
    )
    (tmp_path / "upload.py").write_text(_CALLS)
    script = (
        "ip link set lo up && ip address add 172.16.0.1/32 dev lo && mount --bind hosts /etc/hosts && "
        f"exec {sys.executable} upload.py '{' '.join(COMMAND)}' '{run_node.strip()}'"
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2 * END_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    details, prediction, refused = done.stdout.splitlines()
    assert details == '{"models":[]}'
    assert '"message":"Success"' in prediction
    assert "self-signed certificate" in refused or "DEPTH_ZERO_SELF_SIGNED_CERT" in refused


# Starts the proxy, runs the recipe, and runs it again without the certificate.
_CALLS = """
import json, subprocess, sys

command, recipe = sys.argv[1].split(), sys.argv[2]
proxy = subprocess.Popen(
    [*command, "serve", "--sandbox", "--admin-listen", "off", "--log-format", "json"], stdout=subprocess.PIPE
)
try:
    for line in proxy.stdout:
        if json.loads(line)["event"] == "started":
            break
    subprocess.run(["sh", "-c", recipe], check=True)
    refused = subprocess.run(["node", "classify.mjs"], capture_output=True, text=True)
    assert refused.returncode
    print(refused.stderr.replace("\\n", " "), flush=True)
finally:
    proxy.terminate()
    proxy.wait()
"""
