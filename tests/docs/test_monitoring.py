"""deploy/prometheus and deploy/grafana name only metrics that exist, and each alert is explained."""

import json
import re
from pathlib import Path
from typing import Any

from reference import metrics_page

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
RULES_TESTS = (ROOT / "deploy" / "prometheus" / "rules.test.yaml").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "nanonets-proxy.json").read_text())
ALERTS = (ROOT / "docs" / "operations" / "alerts.md").read_text()

_ALERT = re.compile(r"^      - alert: (\w+)$", re.MULTILINE)
_RUNBOOK = re.compile(r"^          runbook: (\S+)$", re.MULTILINE)
_METRIC = re.compile(r"(?<![\w:])(?:nanonets_proxy|process)_[a-z_]+(?![\w:])")
_SUFFIX = re.compile(r"_(?:bucket|count|sum)$")


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    """Returns the queries of a dashboard's panels."""
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


async def test_every_metric_of_the_rules_and_the_dashboard_exists() -> None:
    known = {row.name for row in await metrics_page.rows()}
    expr = "\n".join(re.findall(r"expr: (.*(?:\n {10,}.*)*)", RULES))
    for text in (expr, RULES_TESTS, "\n".join(expressions(DASHBOARD["panels"]))):
        named = {_SUFFIX.sub("", name) for name in _METRIC.findall(text)}
        assert len(named) > 10
        assert named <= known


def test_each_alert_has_a_paragraph_that_its_runbook_names_and_the_page_has_no_other() -> None:
    alerts = _ALERT.findall(RULES)
    assert len(alerts) > 10
    assert _RUNBOOK.findall(RULES) == [f"docs/operations/alerts.md#{alert.lower()}" for alert in alerts]
    assert re.findall(r"^### (NanonetsProxy\w+)$", ALERTS, re.MULTILINE) == alerts


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:( \[\])?", RULES_TESTS)
    assert {name for name, silent in cases if not silent} == set(_ALERT.findall(RULES))
    assert {name for name, silent in cases if silent} == set(_ALERT.findall(RULES))


def test_each_panel_has_a_sentence_and_a_query() -> None:
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert expressions([panel])
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
