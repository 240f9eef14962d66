"""The command `status`: shows the status document of a running proxy, once or each second.

The layout is our own and plain: a library for tables would take longer to import than the whole command takes now,
and no screen needs more than aligned columns.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, Final

from nanonets_proxy.cli.admin_client import NoResponse, read_status
from nanonets_proxy.cli.output import pause, write
from nanonets_proxy.cli.parser import PROGRAM
from nanonets_proxy.cli.status_text import Style, one_line, status_text
from nanonets_proxy.core.net.addresses import Listener
from nanonets_proxy.process.exit_codes import FAILED, OK

_INTERVAL_S: Final = 1.0
_CLEAR: Final = "\x1b[H\x1b[2J"  # ECMA-48: cursor to the top left, erase the screen
_PLAIN_WIDTH: Final = 100


def show(address: Listener, *, as_json: bool) -> int:
    """Prints the status once. Returns the exit code: FAILED if the proxy sends none."""
    try:
        document = _parse(read_status(address), address)
        text = _indented(document) if as_json else _text(document)
    except NoResponse as error:
        sys.stderr.write(f"{PROGRAM}: no status: {error}\n")
        return FAILED
    write(text)
    return OK


def watch(address: Listener, *, as_json: bool, pause: Callable[[float], None] = pause) -> int:
    """Prints the status each second, until a signal ends the process or nobody reads on.

    A terminal shows all of it. Otherwise there is one line for each change of the state, or of the state's failure.
    """
    last_state = ""
    while True:
        try:
            body = read_status(address)
            document = _parse(body, address)
        except NoResponse as error:
            text, state = f"no status: {error}; trying again\n", "no response"
            if _is_terminal() and not as_json:
                text = _CLEAR + text
            elif state == last_state:
                text = ""
            if as_json:
                sys.stderr.write(text)
                text = ""
        else:
            state = document["state"]["code"]
            if as_json:
                text = body.decode() + "\n"
            elif _is_terminal():
                text = _CLEAR + _text(document)
            else:
                text = one_line(document) if state != last_state else ""
        write(text)
        last_state = state
        pause(_INTERVAL_S)


def _parse(body: bytes, address: Listener) -> dict[str, Any]:
    """Returns the document. Raises NoResponse if it is none of version 1."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("schema_version") != 1:
        raise NoResponse(f"the server on {address} sends another document: are both of the same version?")
    return document


def _indented(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _text(document: dict[str, Any]) -> str:
    if not _is_terminal():
        return status_text(document, Style(_PLAIN_WIDTH, colored=False))
    width = shutil.get_terminal_size().columns
    return status_text(document, Style(width, colored="NO_COLOR" not in os.environ))  # https://no-color.org


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
