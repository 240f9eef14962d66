"""docs/reference/status.md and its JSON schema are generated from the classes of the document."""

from nanonets_proxy.core.status.document import SCHEMA_VERSION
from support.telemetry.status_page import PAGE, SCHEMA, page, schema


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make status-page`"


def test_the_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text() == schema(), "run `make status-page`"


def test_the_page_and_the_schema_name_the_version() -> None:
    assert f"The version of this document: {SCHEMA_VERSION}." in PAGE.read_text()
    assert f'"nanonets-proxy:status:{SCHEMA_VERSION}"' in SCHEMA.read_text()
