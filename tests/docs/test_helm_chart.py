"""The chart's generated files match its schema; the versions in deploy/ are the program's."""

import json
import re

from nanonets_proxy import __version__
from nanonets_proxy.settings.model.proxy import Settings
from reference import helm_chart

CHART = helm_chart.CHART


def test_the_values_and_the_readme_are_generated_from_the_schema() -> None:
    assert (CHART / "values.yaml").read_text() == helm_chart.values_yaml(), "run `make helm-chart`"
    assert (CHART / "README.md").read_text() == helm_chart.readme(), "run `make helm-chart`"


def test_every_value_has_a_description_that_is_a_sentence() -> None:
    values = list(helm_chart._leaves(helm_chart._properties()))
    assert len(values) > 25
    for name, value in values:
        assert value["description"].endswith("."), name
        assert len(value["description"]) > 8, name


def test_the_charts_version_is_the_programs() -> None:
    versions = re.findall(r"^(?:version|appVersion): (.*)$", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    assert versions == [__version__, __version__]


def test_every_image_of_the_manifests_has_the_programs_version() -> None:
    folder = CHART.parents[1] / "kubernetes"
    text = "".join(path.read_text() for path in sorted(folder.glob("*/*.yaml")))
    found = re.findall(r"newTag: (\S+)|nanonets-proxy:([0-9][\w.]*)", text)
    assert len(found) > 4
    assert {tag or version for tag, version in found} == {__version__}


def test_every_template_uses_only_values_of_the_schema_and_each_value_is_used() -> None:
    templates = "".join(path.read_text() for path in sorted(CHART.glob("templates/*")))
    used = set(re.findall(r"\.Values\.([\w.]+)", templates))
    known = {name for name, _ in helm_chart._leaves(helm_chart._properties())}
    assert used == known


def test_the_settings_that_the_chart_makes_itself_exist_and_are_rejected_below_settings() -> None:
    schema = json.loads(helm_chart.SCHEMA.read_text())["properties"]["settings"]
    reserved = set(schema["propertyNames"]["not"]["enum"])
    templates = (CHART / "templates" / "deployment.yaml").read_text()
    made = {name.lower() for name in re.findall(r"name: NANONETS_PROXY_(\w+)", templates)} - {"config"}
    assert made <= reserved
    assert reserved - {"environments", "api_key_file"} <= Settings.model_fields.keys()
