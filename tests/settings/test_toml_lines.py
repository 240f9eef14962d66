"""The line of a setting in a TOML file."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.settings import SettingsError, load_settings, toml_lines
from nanonets_proxy.settings.toml_lines import line_of

TEXT = """# max_wait = 1
via = '''\u2028
max_wait = 2
'''
limits = [
    # max_wait
    "60/min",
]
"max_wait" = 3  # max_wait

[environments.eu]
listen = "max_wait"
max_wait = 4
environments.us.max_wait = 5
[environments]
us = { max_wait = 6 }
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("via",), 2),
        (("limits",), 5),
        (("max_wait",), 9),
        (("environments", "eu", "listen"), 12),
        (("environments", "eu", "max_wait"), 13),
        (("environments", "us", "max_wait"), 16),
        (("environments", "us"), 16),
        (("environments", "eu"), 11),
        (("environments", "asia", "max_wait"), None),
        (("listen",), None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_the_line_that_sets_the_setting_is_found(keys: tuple[str, ...], line: int | None, end: str) -> None:
    assert line_of(TEXT.replace("\n", end), keys) == line


def test_an_escaped_name_has_no_line() -> None:
    assert line_of('# max_wait\n"max\\u005fwait" = 3\n', ("max_wait",)) is None


def test_an_error_about_two_settings_has_the_line_of_each(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('admin_listen = "off"\nvia = ""\nadmin_quit = true\n')
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {}, dirs=[], default_config=path)
    assert caught.value.problems == (
        f"admin_quit: needs the admin listener ({path}:3), but admin_listen is off ({path}:1)",
    )


@given(st.text(alphabet="ab\"=\n[]#,'\\{}. 1", max_size=40))
def test_the_line_is_the_first_with_which_the_setting_is_there(text: str) -> None:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    for name in found:
        line = line_of(text, (name,))
        if line is not None:
            lines = text.split("\n")
            assert name not in tomllib.loads("\n".join(lines[: line - 1]))
            assert name in lines[line - 1]


class CountedParser:
    """Counts the calls of Python's parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._loads = tomllib.loads
        monkeypatch.setattr(tomllib, "loads", self._count)

    def _count(self, text: str) -> dict[str, object]:
        self.calls += 1
        return self._loads(text)


@pytest.mark.parametrize(
    "head", ["limits = [", '"limits" = [ # limits = [', "limits = [ '=',", "a = { b = 1, limits = ["]
)
def test_the_line_of_a_long_list_is_found_without_a_parse_for_each_line(
    monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    end = "] }" if head.startswith("a") else "]"
    text = "\n".join(["via = 'limits'", head, *['  "[::1]=limits",'] * 1000, end, "limits2 = 1"])
    parser = CountedParser(monkeypatch)
    assert line_of(text, ("a", "limits") if head.startswith("a") else ("limits",)) == 2
    assert parser.calls <= 8


def test_a_line_in_the_table_of_the_last_environment_is_found_without_a_parse_for_each_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "".join(f"[environments.e{number:02}]\nmax_wait = 1\n" for number in range(100))
    parser = CountedParser(monkeypatch)
    assert line_of(text, ("environments", "e99", "max_wait")) == 200
    assert parser.calls <= 4


def test_an_error_finds_only_the_lines_of_the_settings_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    others = "".join(f"{name} = '30s'\n" for name in ("max_wait", "connect_timeout", "keep_alive", "drain_timeout"))
    path.write_text(f'admin_listen = "off"\nadmin_quit = true\nlisten = "localhost:8080"\n{others}')
    found: list[Sequence[str]] = []

    def record(text: str, keys: Sequence[str]) -> int | None:
        found.append(keys)
        return line_of(text, keys)

    monkeypatch.setattr(toml_lines, "line_of", record)
    with pytest.raises(SettingsError):
        load_settings({}, {}, dirs=[], default_config=path)
    assert set(found) == {("admin_listen",), ("admin_quit",)}
