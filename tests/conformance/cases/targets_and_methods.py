"""Request targets and methods."""

from typing import Final

from conformance.steps import (
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    Respond,
    Send,
    get,
    post,
)

_TARGETS: Final = {
    "an encoded slash in upper case": b"/a%2Fb",
    "an encoded slash in lower case": b"/a%2fb",
    "double slashes": b"//double//slashes",
    "a trailing slash": b"/dir/",
    "dot segments": b"/a/../b/./c",
    "encoded dot segments": b"/a/%2e%2e/b",
    "dot segments above the root": b"/../../x",
    "parameters": b"/;params;x=1/y;z",
    "an empty query": b"/empty?",
    "two question marks": b"/q??double?marks",
    "repeated query names": b"/q?a=1&a=2&a=",
    "a plus and an encoded space": b"/q?b=%20+%20",
    "an encoded tilde": b"/%7Etilde/~tilde",
    "square brackets": b"/x[0]?x[]=1",
    "sub-delimiters": b"/!$&'()*+,;=:@",
    "an encoded NUL": b"/a%00b",
    "an encoded line end": b"/a%0D%0Ab",
    "an encoded percent sign": b"/a%25b",
    "encoded UTF-8": b"/caf%C3%A9",
    "a bare percent sign": b"/100%",
    "an invalid percent-encoding": b"/a%zzb",
    "a colon in its first segment": b"/a:b/c",
    "a URL in its path": b"/http://example.com/x",
    "a URL in its query": b"/x?u=http://example.com/?a=b",
    "backslashes": b"/a\\b",
    "braces, bars and carets": b"/{a}|b^c`d",
    "8 KiB of path": b"/" + b"p" * 8191,
    "8 KiB of query": b"/?" + b"q" * 8190,
}


TARGETS: Final = (
    [
        Case(
            f"a target with {what} passes byte for byte",
            "RFC 9110 §7.1",
            (Send(get(target)), Receive(b"GET " + target + b" HTTP/1.1"), Respond(OK), SEE_OK),
        )
        for what, target in _TARGETS.items()
    ]
    + [
        Case(
            "raw UTF-8 in a target is percent-encoded",
            "RFC 3986 §2.5",
            (
                Send(get("/café?q=ü".encode())),
                Receive(b"GET /caf%C3%A9?q=%C3%BC HTTP/1.1"),
                Respond(OK),
                SEE_OK,
                Again(),
            ),
            comparable=False,
        ),
    ]
    + [
        Case(
            f"an absolute target that names {what} becomes a path",
            "RFC 9112 §3.2.2",
            (
                Send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host)),
                Receive(b"GET %b HTTP/1.1" % path),
                Respond(OK),
                SEE_OK,
            ),
            comparable=comparable,
        )
        for what, target, host, path, comparable in [
            ("the proxy", b"http://localhost/a%2Fb?x=", b"localhost", b"/a%2Fb?x=", True),
            ("the proxy and a port", b"http://localhost:8080/x", b"localhost:8080", b"/x", True),
            ("the proxy in upper case", b"HTTP://LOCALHOST/x", b"localhost", b"/x", False),
            ("the upstream", b"http://@UP@/x?y", b"@UP@", b"/x?y", False),
            ("the proxy without a path", b"http://localhost", b"localhost", b"/", True),
            ("the proxy with only a query", b"http://localhost?q", b"localhost", b"/?q", False),
            ("the proxy, but not Host,", b"http://localhost/x", b"other.example", b"/x", False),
        ]
    ]
)


_METHODS: Final = (
    b"GET",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"MERGE",
    b"NOTIFY",
    b"SUBSCRIBE",
    b"PURGE",
    b"LINK",
    b"M-SEARCH",
    b"QUERY",
    b"FROB",
    b"X-VENDOR_1",
    b"GETS",
    b"A" * 64,
)


METHODS: Final = (
    [
        Case(
            f"the method {method.decode()[:20]} passes",
            "RFC 9110 §9.1",
            (Send(get(method=method)), Receive(method + b" /x HTTP/1.1"), Respond(OK), SEE_OK, Again()),
        )
        for method in _METHODS
    ]
    + [
        Case(
            f"a {method.decode()} request's body passes",
            "RFC 9110 §9.3",
            (
                Send(post(b"abc", method=method)),
                Receive(method + b" /x HTTP/1.1", body=b"abc"),
                Respond(OK),
                SEE_OK,
                Again(),
            ),
        )
        for method in (b"GET", b"DELETE", b"OPTIONS", b"PATCH", b"PUT", b"FROB")
    ]
    + [
        Case(
            "a method in lower case that is no known one passes",
            "RFC 9110 §9.1",
            (Send(get(method=b"frob")), Receive(b"frob /x HTTP/1.1"), Respond(OK), SEE_OK, Again()),
            comparable=False,
        ),
        Case(
            "OPTIONS * passes",
            "RFC 9112 §3.2.4",
            (Send(get(b"*", method=b"OPTIONS")), Receive(b"OPTIONS * HTTP/1.1"), Respond(OK), SEE_OK),
        ),
        Case(
            "OPTIONS with an absolute target without a path becomes OPTIONS *",
            "RFC 9112 §3.2.4",
            (
                Send(get(b"http://localhost", method=b"OPTIONS")),
                Receive(b"OPTIONS * HTTP/1.1"),
                Respond(OK),
                SEE_OK,
            ),
        ),
    ]
)


GROUPS: Final = {
    "Targets": TARGETS,
    "Methods": METHODS,
}
