"""The error classes of the proxy, in whichever module they are defined."""

from typing import Final

from nanonets_proxy.errors import ProxyError
from nanonets_proxy.upstream.errors import UpstreamError


def _of(*kinds: type[ProxyError]) -> list[type[ProxyError]]:
    """Returns these classes and all classes below them."""
    return [found for kind in kinds for found in (kind, *_of(*kind.__subclasses__()))]


VISIBLE: Final = [kind for kind in _of(ProxyError) if "code" in vars(kind)]
"""The errors that callers see, each with a code of its own."""
assert any(issubclass(kind, UpstreamError) for kind in VISIBLE)
