"""The fixtures `nanonets_sandbox` and `nanonets_proxy`, and the marker `nanonets`.

pytest imports this module in every project that has the package, so it imports nothing else of the package until a
test asks for a fixture. Each test gets processes of its own, so no limit, document or fault of one test reaches
another. They are forks of one process that has imported the program (`template.py`), which makes them cheap.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanonets_proxy.pytest_plugin.servers import NanonetsProxy, NanonetsSandbox
    from nanonets_proxy.pytest_plugin.template_process import TemplateProcess

MARKER = "nanonets"


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(limit, limit_kind, limit_scope, hint, latency, failure_rate, faults, pending_polls, etags, "
        "api_keys, proxy): how the simulated API of nanonets_sandbox behaves, and the proxy's settings.",
    )


@pytest.fixture(scope="session")
def _nanonets_template() -> "Iterator[TemplateProcess]":
    from nanonets_proxy.pytest_plugin.template_process import TemplateProcess

    with TemplateProcess() as template:
        yield template


@pytest.fixture
def nanonets_sandbox(
    request: pytest.FixtureRequest, _nanonets_template: "TemplateProcess"
) -> "Iterator[NanonetsSandbox]":
    """A simulated Nanonets API of this test alone: `url`, `api_key`, and `requests()` that arrived."""
    from nanonets_proxy.pytest_plugin import marker, servers

    with servers.sandbox(_nanonets_template, marker.read(request.node.iter_markers(MARKER))) as server:
        yield server


@pytest.fixture
def nanonets_proxy(
    request: pytest.FixtureRequest, _nanonets_template: "TemplateProcess", nanonets_sandbox: "NanonetsSandbox"
) -> "Iterator[NanonetsProxy]":
    """A proxy of this test alone, in front of `nanonets_sandbox`: `url`, and `requests()` that it sent upstream."""
    from nanonets_proxy.pytest_plugin import marker, servers

    arguments = marker.read(request.node.iter_markers(MARKER))
    with servers.proxy(_nanonets_template, arguments, nanonets_sandbox) as server:
        yield server
