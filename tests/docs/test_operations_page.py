"""docs/operations: states and alerts are explained, and the codes of the troubleshooting table exist."""

import inspect
import re
from pathlib import Path

from nanonets_proxy.core.status import document, state
from support.error_classes import VISIBLE

DOCS = Path(__file__).parents[2] / "docs"
STATUS = (DOCS / "operations" / "status.md").read_text()
ALERTS = (DOCS / "operations" / "alerts.md").read_text()
STATES = state._URGENCY


def _rows(heading: str, page: str) -> list[list[str]]:
    """Returns the cells of the first table below a heading, without its head."""
    section = page.partition(heading)[2]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    table = section.splitlines()
    start = table.index(lines[0]) + 2
    rows = []
    for line in table[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_each_state_is_explained_on_the_page_and_in_the_reference() -> None:
    explained = [code for row in _rows("## Status\n", STATUS) for code in re.findall(r"`(\w+)`", row[0])]
    assert sorted(explained) == sorted(STATES)
    # The functions of the module are in the order in which `state_of` calls them.
    decided = re.findall(r'State\(\s*"(\w+)"', inspect.getsource(state))
    assert explained == list(dict.fromkeys(decided)), "the first row that applies decides"
    listed = re.findall(r"`(\w+)`", inspect.getsource(document.State).partition("cause")[0])
    assert sorted(listed) == sorted(STATES)


def test_the_page_explains_each_alert_of_the_reference() -> None:
    reference = (DOCS / "reference" / "log-events.md").read_text()
    alerts = [row[0] for row in _rows("## Alerts\n", reference)]
    assert len(alerts) > 15
    assert sorted(row[0] for row in _rows("## Alerts\n", ALERTS)) == sorted(alerts)


def test_each_code_of_the_troubleshooting_table_exists_with_its_status() -> None:
    statuses = {kind.code: kind.status for kind in VISIBLE}
    found = 0
    for symptom, *_ in _rows("### From symptom to cause\n", STATUS):
        if re.match(r"\d{3} `", symptom):
            for code in re.findall(r"`(\w+)`", symptom):
                assert statuses[code] == int(symptom[:3]), code
                found += 1
    assert found > 12
