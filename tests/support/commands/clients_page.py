"""The recipes of docs/clients.md."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "clients.md"


def recipe(client: str, language: str) -> str:
    """Returns the code of a client's section in a language. Raises AssertionError unless there is exactly one."""
    (section,) = re.findall(
        rf"^### {re.escape(client)}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, f"{client} has no code in {language}"
    return "\n".join(blocks)
