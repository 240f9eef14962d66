"""The pages of uploads whose callers do not state them, in scopes whose limits are in pages.

A small body has arrived before its request asks for a permit, so its pages are counted first. A larger upload gets
its permit at the mean cost of its scope. Its pages are counted once its last byte is read, and then correct the
cost.
"""

from typing import TYPE_CHECKING, Final

from nanonets_proxy.admission.admission import Admission
from nanonets_proxy.core.ratelimit.scopes.page_costs import PageCosts
from nanonets_proxy.pages.page_counter import PageCounter
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.server.connection.caller_request import CallerRequest
from nanonets_proxy.upstream.body import RequestBody

if TYPE_CHECKING:
    import asyncio

    from nanonets_proxy.core.ratelimit.tickets import Ticket

MAX_COUNT_S: Final = 0.02
"""A request waits this long for its pages at most. A busy machine may need longer."""

_MAX_STREAMED_S: Final = 1.0  # only a refused upload waits for this count
_COUNTED_TYPES: Final = (b"multipart/form-data", b"application/pdf", b"image/tiff")


class UploadPages:
    """Counts the pages of the uploads of one environment."""

    def __init__(self, counter: PageCounter, costs: PageCosts, waiting_room: Admission) -> None:
        self.counter = counter
        self.costs = costs
        self.waiting_room = waiting_room

    def of(self, request: CallerRequest, record: AccessRecord) -> "PageCount | None":
        """Returns the count of an upload in a scope in pages, not begun yet; None if none can be made."""
        content_type = b""
        for name, value in zip(request.names, request.values, strict=True):
            match name.lower():
                case b"content-type":
                    content_type = value
                case b"content-encoding":  # the body is compressed
                    return None
        return PageCount(self, record, content_type) if content_type.lower().startswith(_COUNTED_TYPES) else None


class PageCount:
    """The count of one upload's pages."""

    __slots__ = ("_content_type", "_pages", "_record", "_uploads", "ticket")

    def __init__(self, uploads: UploadPages, record: AccessRecord, content_type: bytes) -> None:
        self._uploads = uploads
        self._record = record
        self._content_type = content_type
        self._pages: asyncio.Future[int | None] | None = None
        self.ticket: Ticket | None = None
        """The ticket of a streamed upload, which has a permit while its body is read."""

    async def count_whole(self, body: bytes, mean: float) -> float:
        """Returns the cost of an upload that has arrived whole: its pages, else the mean of its scope."""
        pages = await self._uploads.counter.count(self._content_type, [body], MAX_COUNT_S)
        if pages is None:
            return mean
        self._note(pages)
        return pages

    def follow(self, body: RequestBody) -> None:
        """Counts the pages of a streamed upload once its last byte is read, and corrects the cost of its ticket."""
        body.on_whole = lambda: self._begin(body)

    async def finish(self) -> None:
        """Waits for the result of a count that has begun."""
        if self._pages is not None:
            await self._pages

    def _begin(self, body: RequestBody) -> None:
        self._pages = self._uploads.counter.count(self._content_type, body.copy, _MAX_STREAMED_S)
        self._pages.add_done_callback(self._correct)

    def _correct(self, counted: "asyncio.Future[int | None]") -> None:
        if not counted.cancelled() and (pages := counted.result()) is not None:
            self._note(pages)
            if self.ticket is not None:
                self._uploads.waiting_room.correct_cost(self.ticket, pages)

    def _note(self, pages: int) -> None:
        self._record.pages = pages
        self._uploads.costs.note(self._record.scope, pages)
