"""A minimal reverse proxy with aiohttp: `python -m speed.peers.recipe PORT UPSTREAM AUTHORIZATION [CA]`.

It drops hop-by-hop fields and adds the API key. Small bodies are read whole, which is faster; large
bodies are streamed.
"""

import ssl
import sys
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import ClientSession, TCPConnector, web
from multidict import CIMultiDict

_HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
)
_NOT_FORWARDED: Final = _HOP_BY_HOP | {"upgrade", "host", "authorization"}
_WHOLE_BYTES: Final = 1024**2
_SESSION: Final = web.AppKey("session", ClientSession)


def application(upstream: str, authorization: str, ca_file: str | None) -> web.Application:
    async def forward(request: web.Request) -> web.StreamResponse:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _NOT_FORWARDED]
        headers.append(("Authorization", authorization))
        body = None
        if request.body_exists:
            small = (request.content_length or _WHOLE_BYTES) < _WHOLE_BYTES
            body = await request.read() if small else request.content
        url = upstream + request.path_qs
        async with request.app[_SESSION].request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as upstream_response:
            fields = upstream_response.headers.items()
            kept = CIMultiDict((name, value) for name, value in fields if name.lower() not in _HOP_BY_HOP)
            if (upstream_response.content_length or 0) < _WHOLE_BYTES:
                whole = await upstream_response.read()
                return web.Response(status=upstream_response.status, headers=kept, body=whole)
            response = web.StreamResponse(status=upstream_response.status, headers=kept)
            await response.prepare(request)
            async for chunk in upstream_response.content.iter_any():
                await response.write(chunk)
            return response

    async def session(app: web.Application) -> AsyncIterator[None]:
        context = ssl.create_default_context(cafile=ca_file) if ca_file else True
        connector = TCPConnector(limit=0, ssl=context)
        async with ClientSession(connector=connector, auto_decompress=False) as app[_SESSION]:
            yield

    app = web.Application(client_max_size=2 * _WHOLE_BYTES)
    app.router.add_route("*", "/{path:.*}", forward)
    app.cleanup_ctx.append(session)
    return app


if __name__ == "__main__":
    port, upstream, authorization, *ca = sys.argv[1:]
    web.run_app(
        application(upstream, authorization, ca[0] if ca else None),
        host="127.0.0.1",
        port=int(port),
        access_log=None,
        print=None,
    )
