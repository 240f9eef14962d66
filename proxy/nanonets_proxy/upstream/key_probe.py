"""Asks the upstream about a key by a cheap GET, beside the callers' requests."""

from nanonets_proxy.core.http.head_writer import request_head
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import KeyVerdict, verdict_of
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.upstream.client import UpstreamClient, UpstreamRequest


class KeyProbe:
    """Call it with a key. `path` is the target of the GET."""

    def __init__(self, client: UpstreamClient, origin: Origin, path: str) -> None:
        self._client = client
        self._host = origin.authority.encode()
        self._path = path.encode("ascii")

    async def __call__(self, key: ApiKey) -> KeyVerdict:
        head = request_head(b"GET", self._path, self._host, (b"Authorization", key.authorization()))
        try:
            connection, answer = await self._client.send(UpstreamRequest("GET", head, None))
        except ProxyError:
            return KeyVerdict.UNKNOWN
        # Its body is of no interest: finished unread, the connection closes.
        self._client.release(connection)
        return verdict_of(answer.status)
