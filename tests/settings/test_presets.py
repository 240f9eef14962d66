"""The presets: other defaults for another upstream."""

from typing import Any

import pytest

from nanonets_proxy.core.keys.audience import AuthScheme
from nanonets_proxy.settings import LoadedSettings, Settings, SettingsError, load_settings
from nanonets_proxy.settings.model.groups import NEEDS_RESTART, PROCESS_WIDE
from nanonets_proxy.settings.presets import PRESETS


def load(**flags: Any) -> LoadedSettings[Settings]:
    return load_settings(flags, {}, dirs=[])


def test_docstrange_has_its_upstream_scheme_and_scopes() -> None:
    loaded = load(preset="docstrange")
    settings = loaded.settings
    assert str(settings.upstream) == "https://extraction-api.nanonets.com"
    assert settings.auth is AuthScheme.BEARER
    assert {rule.scope for rule in settings.scopes} == {"extract"}
    assert settings.coalesce == ("/api/v1/extract/results/{record}",)
    assert (loaded.sources["upstream"], loaded.sources["preset"]) == ("preset docstrange", "flag --preset")
    assert loaded.given.keys() == {"preset"}


def test_a_given_setting_wins_over_the_preset() -> None:
    settings = load(preset="docstrange", upstream="http://localhost:8090", coalesce="").settings
    assert (str(settings.upstream), settings.coalesce) == ("http://localhost:8090", ())
    assert settings.auth is AuthScheme.BEARER


def test_none_has_the_usual_defaults() -> None:
    assert load(preset="none").settings == load().settings.model_copy(update={"preset": "none"})


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(SettingsError, match="preset: must be none or docstrange, not 'dockstrange'"):
        load(preset="dockstrange")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"auth": "bearer"}, r"auth: app\.nanonets\.com \(default\) takes basic, not bearer \(flag --auth\)"),
        (
            {"preset": "docstrange", "auth": "basic"},
            r"auth: extraction-api\.nanonets\.com \(preset docstrange\) takes bearer, not basic \(flag --auth\)",
        ),
        (
            {"upstream": "https://extraction-api.nanonets.com"},
            r"auth: extraction-api\.nanonets\.com \(flag --upstream\) takes bearer, not basic \(default\)",
        ),
    ],
)
def test_a_scheme_that_the_upstream_does_not_take_is_an_error_at_start(flags: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(**flags)


def test_a_preset_sets_no_setting_of_the_whole_process() -> None:
    assert {"preset", "auth", "upstream"} <= NEEDS_RESTART
    for values in PRESETS.values():
        assert values.keys() <= Settings.model_fields.keys() - PROCESS_WIDE
