"""What the parser refuses, by our names."""

from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from nanonets_proxy.errors import BadRequest, HeadTooLarge, ProxyError, TargetTooLong


def refusal_for(error: BaseException | None, *, max_target_bytes: int) -> ProxyError:
    """Ours for the parser's, whose limit of a request line is `max_target_bytes`."""
    match error:
        case ProxyError():
            return error
        case LineTooLong(args=(_, limit, *_)) if limit == max_target_bytes:
            return TargetTooLong("The request target is too long.")
        case LineTooLong():
            return HeadTooLarge("A header field of the request is too large.")
        case BadHttpMessage(message=message) if message.startswith("Too many headers"):
            return HeadTooLarge("The request has too many header fields.")
        case _:
            return BadRequest("The request is not valid HTTP.")


def forget_frames(error: BaseException | None) -> None:
    """The parser's errors know the frames that they passed, and these all of the bytes that were read. Such a cycle
    lives until the collector's last generation, which a flood of large heads hardly ever starts."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
