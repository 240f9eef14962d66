"""The pages of docs/deployment: a page for each form, whose commands are run, and the reader that runs them."""

import re
from pathlib import Path

import pytest

from support.commands.page_commands import LANGUAGES, ROOT, Reader, languages, sections, shows

FOLDER = ROOT / "docs" / "deployment"
PAGES = sorted(FOLDER.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_names_its_language_so_that_its_commands_are_found(page: Path) -> None:
    assert languages(page.read_text()) <= {*LANGUAGES, "toml", "yaml", "json", "text"}


def test_a_test_runs_the_commands_of_each_page() -> None:
    tests = "".join(path.read_text() for path in ROOT.glob("tests/system/**/test_*.py"))
    followed = {page.name for page in PAGES if f'"{page.name}"' in tests}
    assert {page.name for page in PAGES if list(sections(page.read_text()))} == followed


def test_the_index_lists_every_form() -> None:
    listed = set(re.findall(r"^\| \[[\w ]+\]\((\w+\.md)\)", (FOLDER / "index.md").read_text(), re.MULTILINE))
    assert listed == {page.name for page in PAGES} - {"index.md"}


# --- the reader -----------------------------------------------------------------------------


def _reader(tmp_path: Path) -> Reader:
    (tmp_path / "clone").mkdir(exist_ok=True)
    return Reader(tmp_path / "clone", {"PATH": "/usr/bin:/bin"}, patience_s=0)


def _page(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text)
    return page


def test_commands_share_directory_and_variables(tmp_path: Path) -> None:
    text = "```sh\nmkdir a && cd a\nexport B='c d'\n```\n\n1. List:\n\n"
    text += "   ```console\n   $ pwd\n   .../clone/a\n   $ echo \\\n     $B\n   c d\n   ```\n"
    _reader(tmp_path).follow(_page(tmp_path, text))


def test_each_block_of_a_page_is_found() -> None:
    texts = ("```sh\na\n```\n\n```console\n$ b\n```\n", "```sh\na\n```\n```console\n$ b\n```")
    for text in texts:
        assert [command.script for section in sections(text) for command in section] == ["a\n", "b\n"]
    for page in PAGES:
        text = page.read_text()
        found = sum(len(section) for section in sections(text))
        assert found >= sum(text.count(f"```{language}\n") for language in LANGUAGES)


def test_another_output_or_a_failure_is_an_error(tmp_path: Path) -> None:
    reader = _reader(tmp_path)
    with pytest.raises(AssertionError, match="the page has: two"):
        reader.follow(_page(tmp_path, "```console\n$ echo one\ntwo\n```\n"))
    with pytest.raises(AssertionError, match="exit code 1"):
        reader.follow(_page(tmp_path, "```sh\nfalse\ntrue\n```\n"))


def test_what_the_reader_types_goes_to_the_command_that_asks(tmp_path: Path) -> None:
    text = '```sh\nread -rs KEY && echo "$KEY" > key\n```\n\n```console\n$ cat key\nsecret\n```\n'
    _reader(tmp_path).follow(_page(tmp_path, text), "secret")
    with pytest.raises(AssertionError, match="did not ask for all input"):
        _reader(tmp_path).follow(_page(tmp_path, text), "secret", "more")


def test_a_command_that_keeps_its_terminal_ends_with_its_section(tmp_path: Path) -> None:
    wait = "```sh\ntrap 'echo end > ended; exit' INT\ntouch started\nwhile true; do sleep 0.05; done\n```\n"
    other = "\nIn another terminal:\n\n```sh\ntest -e started\n! test -e ended\n```\n"
    end = "## End\n\n```sh\ntest -e ended\n```\n"
    _reader(tmp_path).follow(_page(tmp_path, f"# Start\n\n{wait}{other}\n{end}"))


@pytest.mark.parametrize(
    ("written", "printed", "is_shown"),
    [
        ("a...d", "a\nbc\nd\n", True),
        ("a", "a\n", True),
        ("a", "ab", False),
        ("a.b", "axb", False),
        (None, "x", True),
    ],
)
def test_three_dots_stand_for_any_text(written: str | None, printed: str, is_shown: bool) -> None:
    assert shows(written, printed) is is_shown
