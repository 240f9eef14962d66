"""Names that callers may have chosen, for people."""

from typing import Final

MAX_NAME_CHARS: Final = 64
MAX_SENTENCE_CHARS: Final = 400
MAX_REASON_CHARS: Final = 200


def shown(name: str, most: int = MAX_NAME_CHARS) -> str:
    """Returns the name cut to `most` characters, with `?` for characters that UTF-8 cannot encode."""
    name = name[:most]
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """Returns the text with escapes for all characters that control a terminal, or reorder or hide text."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
