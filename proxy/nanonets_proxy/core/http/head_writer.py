"""Writes the heads of requests that the proxy makes itself: probes of a key, and CONNECT."""


def request_head(method: bytes, target: bytes, host: bytes, *fields: tuple[bytes, bytes]) -> bytes:
    """Returns a whole head, to the empty line. Host comes first (RFC 9110 §7.2), then `fields` in their order."""
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: " + host]
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join([*lines, b"", b""])
