"""The observable result of parsing a response, for comparing two ways of parsing."""

import itertools
from dataclasses import dataclass

from nanonets_proxy.upstream.errors import UpstreamError
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState


@dataclass(frozen=True)
class ParsedResponse:
    """Everything that the response parser tells about a response."""

    state: ResponseState
    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body_length: int | None
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    interim_count: int
    keep_alive: bool
    error: type[UpstreamError] | None


def parse(*pieces: bytes, is_head: bool = False, ended: bool = False) -> ParsedResponse:
    return parse_with(ResponseParser(is_head=is_head), *pieces, ended=ended)


def parse_with(parser: ResponseParser, *pieces: bytes, ended: bool = False) -> ParsedResponse:
    error: UpstreamError | None = None
    try:
        for piece in pieces:
            parser.feed(piece)
        if ended:
            parser.end_of_input()
    except UpstreamError as caught:
        error = caught
    assert error is None or error.sent
    head = parser.head
    keep_alive = parser.keep_alive and error is None
    return ParsedResponse(
        parser.state,
        head.status,
        head.reason,
        tuple(head.headers),
        head.body_length,
        parser.take_body(),
        tuple(parser.trailers),
        parser.interim_count,
        keep_alive,
        None if error is None else type(error),
    )


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]
