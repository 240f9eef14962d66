"""Tests a key with a cheap GET of the proxy's own."""

from typing import Final

from nanonets_proxy.core.http.head_writer import request_head
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import KeyVerdict, verdict_of
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.exchange import UpstreamRequest

DEFAULT_PATH: Final = "/api/v4/workflows"
"""Lists the account's workflows, so Nanonets must check the key."""


class KeyProbe:
    """`await probe(key)` returns the upstream's verdict. `path` is the target of the GET."""

    def __init__(self, client: UpstreamClient, origin: Origin, path: str) -> None:
        self._client = client
        self._origin = origin
        self._host = origin.authority.encode()
        self._path = path.encode("ascii")

    async def __call__(self, key: ApiKey) -> KeyVerdict:
        request = request_head(b"GET", self._path, self._host, (b"Authorization", key.authorization(self._origin)))
        try:
            connection, head = await self._client.send(UpstreamRequest("GET", request, None))
        except ProxyError:
            return KeyVerdict.UNKNOWN
        # The body is not read, so this closes the connection.
        self._client.release(connection)
        return verdict_of(head.status)
