"""The environment variables of the command. Pure: takes and returns mappings."""

from collections.abc import Iterable, Mapping
from typing import Final

KEY_VARIABLE: Final = "NANONETS_API_KEY"
URL_VARIABLE: Final = "NANONETS_BASE_URL"
_HIDDEN_PREFIXES: Final = (KEY_VARIABLE, "NANONETS_PROXY_")
_PROXIES: Final = ("http_proxy", "all_proxy")
_EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")
_HOST: Final = "127.0.0.1"


def hidden_variables(environ: Mapping[str, str]) -> list[str]:
    """Returns the variables that hold the key, or say where it is."""
    return [name for name in environ if name.upper().startswith(_HIDDEN_PREFIXES)]


def command_variables(environ: Mapping[str, str], token: str, url: str, hidden: Iterable[str]) -> dict[str, str]:
    """Returns the command's variables: those of `environ` without the key, and with token and address.

    `hidden`: further variables to leave out. If requests over HTTP use a proxy of the network, those to the
    address do not: that proxy would see the token.
    """
    left_out = {*hidden_variables(environ), *hidden}
    variables = {name: value for name, value in environ.items() if name not in left_out}
    if any(name.lower() in _PROXIES for name in variables):
        for name in _EXCEPTIONS:
            exceptions = variables.get(name, "")
            if exceptions != "*":
                variables[name] = f"{exceptions},{_HOST}" if exceptions else _HOST
    return {**variables, KEY_VARIABLE: token, URL_VARIABLE: url}
