"""The rules and the dashboard, evaluated by a real Prometheus that scrapes a loaded proxy."""

import http.client
import json
import math
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.commands.process import ANY_PORTS, Running, environment, running, sandbox
from system.deploy.tools import parse
from system.podman import ROOT, STATE, wait_for

pytestmark = pytest.mark.system

PROMETHEUS = ROOT / "deploy" / "prometheus"
KEY = "monitoring-3f1c9a7e5b2d4860"


def _promtool(*arguments: str | Path) -> tuple[int, str]:
    command = [str(STATE / "promtool"), *map(str, arguments)]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_rules_pass_their_linter_and_their_tests() -> None:
    for command in (("check", "rules", "rules.yaml"), ("test", "rules", "rules.test.yaml")):
        code, output = _promtool(*command)
        assert code == 0, output


def test_the_linter_refuses_a_broken_rule_and_the_tests_a_changed_threshold(tmp_path: Path) -> None:
    rules = (PROMETHEUS / "rules.yaml").read_text()
    (tmp_path / "broken.yaml").write_text(rules.replace("nanonets_proxy_ready == 0", "nanonets_proxy_ready == ("))
    assert _promtool("check", "rules", tmp_path / "broken.yaml")[0] != 0
    (tmp_path / "rules.yaml").write_text(rules.replace("nanonets_proxy_cooldown_seconds) > 900", "up) > 900"))
    (tmp_path / "rules.test.yaml").write_text((PROMETHEUS / "rules.test.yaml").read_text())
    code, output = _promtool("test", "rules", tmp_path / "rules.test.yaml")
    assert code != 0
    assert "NanonetsProxyQuotaUsedUp" in output


@pytest.mark.parametrize("page", ["deploy/prometheus/README.md", "docs/operations/index.md"])
def test_the_scrape_configurations_on_a_page_are_valid(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    configurations = [block for block in blocks if "scrape_configs:" in block]
    assert configurations
    (tmp_path / "rules.yaml").write_text((PROMETHEUS / "rules.yaml").read_text())
    token = tmp_path / "token"
    token.write_text("nnp_")
    for text in configurations:
        text = re.sub(r"credentials_file: [^ ]+", f"credentials_file: {token}", text)
        # Debian's build cannot discover targets in Kubernetes, so this part stays unchecked.
        text = text.replace("kubernetes_sd_configs: [{ role: pod }]", "static_configs: []")
        (tmp_path / "prometheus.yaml").write_text(text)
        code, output = _promtool("check", "config", tmp_path / "prometheus.yaml")
        assert code == 0, output
        (tmp_path / "prometheus.yaml").write_text(text.replace("job_name:", "jobname:"))
        assert _promtool("check", "config", tmp_path / "prometheus.yaml")[0] != 0, "a misspelled field is found"


def test_the_command_on_the_page_wraps_the_rules_for_the_operator() -> None:
    page = (PROMETHEUS / "README.md").read_text()
    (command,) = re.findall(r"^\$ (\{.*?) \| kubectl", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(["bash", "-c", command], cwd=PROMETHEUS, capture_output=True, text=True, check=True)
    (wrapped,) = parse(done.stdout)
    (rules,) = parse((PROMETHEUS / "rules.yaml").read_text())
    assert wrapped["kind"] == "PrometheusRule"
    assert wrapped["spec"] == rules


def _get(url: str, **fields: str) -> int:
    address, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", f"/{path}", headers=fields)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@contextmanager
def _load(proxy: Running) -> Iterator[None]:
    """Sends requests until the block ends: some wait, some cannot, and some are rejected."""
    ends = threading.Event()

    def send() -> None:
        while not ends.is_set():
            _get(f"{proxy.url}/api/v4/workflows")

    def ask_for_the_impossible() -> None:
        while not ends.wait(0.2):
            _get(f"{proxy.url}/api/v4/workflows", Prefer="wait=0")
            _get(f"{proxy.url}/api/v4/workflows", Host="stranger.example")

    threads = [threading.Thread(target=job) for job in (*[send] * 12, ask_for_the_impossible)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


@contextmanager
def _prometheus(target: str, folder: Path) -> Iterator[str]:
    """Runs Prometheus with the rules, and yields its URL."""
    (folder / "prometheus.yaml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(PROMETHEUS / "rules.yaml")],
                "scrape_configs": [{"job_name": "nanonets-proxy", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    command = [
        str(STATE / "prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            address = next(filter(None, map(_listen_address, process.stderr)))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            url = f"http://{address}"
            wait_for("Prometheus", lambda: _get(f"{url}/-/ready") == 200)
            yield url
        finally:
            process.terminate()
            process.wait()


def _listen_address(line: str) -> str | None:
    found = re.search(r"Listening on.* address=(127\.0\.0\.1:[0-9]+)", line)
    return found[1] if found else None


def _api(prometheus: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{prometheus}/api/v1/{path}?{query}", timeout=10) as response:
        return json.load(response)["data"]


def _has_data(prometheus: str, query: str) -> bool:
    samples = _api(prometheus, "query", query=query)["result"]
    return any(not math.isnan(float(sample["value"][1])) for sample in samples)


def _dashboard_queries() -> list[str]:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "nanonets-proxy.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    values = {"$__rate_interval": "30s", "$job": "nanonets-proxy", "$instance": ".*", "$environment": ".*"}
    for name, value in values.items():
        queries = [query.replace(name, value) for query in queries]
    return queries


def test_every_query_of_the_dashboard_and_every_record_returns_data(tmp_path: Path) -> None:
    records = re.findall(r"record: (\S+)", (PROMETHEUS / "rules.yaml").read_text())
    queries = [*_dashboard_queries(), *(record for record in records if ":failed:" not in record)]
    assert len(queries) > 30
    assert not [query for query in queries if "$" in query]
    # Nobody listens on the discard port, which raises the alert traces_not_sent.
    env = environment(NANONETS_API_KEY=KEY, NANONETS_PROXY_OTLP_ENDPOINT="http://127.0.0.1:9")
    with (
        sandbox("--limit", "8/2s", key=KEY) as upstream,
        running(["serve", *ANY_PORTS, "--upstream", upstream], env, is_forked=True) as proxy,
        _prometheus(proxy.admin_url.removeprefix("http://"), tmp_path) as prometheus,
        _load(proxy),
    ):
        missing = set(queries)

        def all_have_data() -> bool:
            missing.difference_update([query for query in missing if _has_data(prometheus, query)])
            return not missing

        try:
            wait_for("data for each query", all_have_data, within_s=60.0)
        except AssertionError:
            raise AssertionError(f"no data for {missing}") from None
        rules = [rule for group in _api(prometheus, "rules")["groups"] for rule in group["rules"]]
        assert len(rules) == len(records) + 16
        assert [rule for rule in rules if rule["health"] != "ok"] == []
