"""Reads small files that hold secrets or settings."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from nanonets_proxy.core.keys.key_mistakes import NOT_SHOWN, may_be_key

if TYPE_CHECKING:
    from nanonets_proxy.core.access.caller_tokens import CallerToken

MAX_FILE_BYTES = 64 * 1024
# Container engines make secrets readable by all users of the container, which are few.
_SECRET_DIR = Path("/run/secrets")


class FileUnreadable(Exception):
    """A file cannot be read. The message is the end of a sentence that starts with the file's name."""


def os_fault(error: OSError) -> str:
    """Describes an OSError, as the end of a sentence that starts with the file's name."""
    match error:
        case FileNotFoundError():
            return "does not exist"
        case IsADirectoryError():
            return "is a directory"
        case PermissionError():
            return "cannot be read: permission denied"
        case _:
            return f"cannot be read: {(error.strerror or 'unknown fault').lower()}"


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file, for `open`. Without O_NONBLOCK the opening of a FIFO waits for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_small_file(path: Path) -> str:
    """Returns the text of a regular file of at most `MAX_FILE_BYTES`, one character for each byte (Latin-1).

    Raises:
        FileUnreadable: the file is missing, not regular or too large, or the system denies access.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileUnreadable("is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FileUnreadable(os_fault(error)) from None
    except ValueError:
        raise FileUnreadable("is not a file name: it has a null byte in it") from None
    if len(content) > MAX_FILE_BYTES:
        raise FileUnreadable(f"is larger than {MAX_FILE_BYTES // 1024} KiB")
    return content.decode("latin-1")


def has_secret_as_path(path: Path) -> bool:
    """Returns whether a secret was perhaps given in place of the path of its file."""
    return may_be_key(str(path)) and not os.path.lexists(path)


def shown_path(path: Path) -> str:
    """Returns the path of a secret's file for messages, without a secret that was given in its place."""
    return NOT_SHOWN if has_secret_as_path(path) else str(path)


def read_caller_tokens(path: Path) -> "tuple[CallerToken, ...]":
    """Parses a file of caller tokens.

    Raises:
        ValueError: the file cannot be used; the message is the end of a sentence that starts with the file's name.
    """
    # Imported here, as below: `run` reads the key's file before its command starts.
    from nanonets_proxy.core.access.caller_tokens import parse_token_lines

    try:
        return parse_token_lines(read_small_file(path))
    except FileUnreadable as error:
        raise ValueError(str(error)) from None


def read_webhook_key(path: Path) -> bytes:
    """Returns the key of a webhook's signatures.

    Raises:
        ValueError: the file cannot be used. The message is the end of a sentence that starts with the file's name.
    """
    from nanonets_proxy.core.net.webhook_url import parse_webhook_secret

    try:
        return parse_webhook_secret(read_small_file(path))
    except FileUnreadable as error:
        raise ValueError(str(error)) from None


def can_be_read_by_others(path: Path) -> bool:
    """Returns whether every user of the machine can read the file, as far as the modes of file and folders say.

    Files of container engines do not count: those in /run/secrets, and those behind a link `..data` of Kubernetes.
    """
    try:
        file = path.resolve(strict=True)
        if path.is_relative_to(_SECRET_DIR) or any(part.startswith("..") for part in file.parts):
            return False
        if not file.stat().st_mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in file.parents)
    except OSError:
        return False
