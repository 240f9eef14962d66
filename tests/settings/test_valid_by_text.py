"""Which settings stay valid as long as their texts are the same."""

from pathlib import Path
from typing import get_args

import pytest

from nanonets_proxy.settings import Settings, load_settings
from nanonets_proxy.settings.loaded import are_valid_by_text
from nanonets_proxy.settings.model.fields import StringOf
from nanonets_proxy.settings.model.groups import VALID_BY_TEXT
from nanonets_proxy.settings.presets import PRESETS

KEY_STORES = ("api_key_command", "vault_", "aws_")


def test_a_setting_that_is_a_secret_a_file_or_a_store_is_never_valid_by_its_text_alone() -> None:
    assert Settings.model_fields.keys() >= VALID_BY_TEXT
    for name, field in Settings.model_fields.items():
        is_secret = any(isinstance(item, StringOf) and item.is_secret for item in field.metadata)
        is_file = Path in (field.annotation, *get_args(field.annotation))
        if is_secret or is_file or "token" in name or name.startswith(KEY_STORES):
            assert name not in VALID_BY_TEXT
    # The upstream decides which key is right.
    assert not VALID_BY_TEXT & {"preset", "upstream", "auth", *PRESETS["docstrange"]} - {
        "scopes",
        "coalesce",
        "key_probe",
    }


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("", True),
        ("max_wait = 3\npolicy = 'allow GET /**'", True),
        ("max_wait = 3\nca_file = ''", False),
        ("[environments.a]\n", False),
    ],
)
def test_settings_are_valid_by_text_if_each_given_setting_is(toml: str, expected: bool, tmp_path: Path) -> None:
    (file := tmp_path / "settings.toml").write_text(toml)
    loaded = load_settings({}, {}, dirs=[], default_config=file)
    assert are_valid_by_text(loaded) is expected


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        ({}, {"NANONETS_API_KEY_FILE": "key"}, "", True),
        ({}, {"NANONETS_API_KEY_FILE": "key"}, "api_key_file = 'other'", True),
        ({}, {}, "api_key_file = 'other'", False),
        ({}, {"NANONETS_PROXY_API_KEY_FILE": "other"}, "", False),
        ({"api_key_file": "other"}, {"NANONETS_API_KEY_FILE": "key"}, "", False),
    ],
)
def test_only_the_key_file_that_run_itself_reads_may_change(
    flags: dict[str, str], environ: dict[str, str], toml: str, expected: bool, tmp_path: Path
) -> None:
    (file := tmp_path / "settings.toml").write_text(toml)
    loaded = load_settings(flags, environ, dirs=[], default_config=file)
    assert are_valid_by_text(loaded) is expected
