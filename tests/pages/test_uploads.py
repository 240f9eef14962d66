"""The pages of an upload, by its bytes and its Content-Type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.scopes.page_costs import MAX_PAGES
from nanonets_proxy.pages.pdf import initialize, pdf_pages
from nanonets_proxy.pages.uploads import upload_pages
from support.documents import BOUNDARY, FORM, form, pdf, tiff

PNG = b"\x89PNG\r\n\x1a\n..."

initialize()


def pages(body: bytes, content_type: bytes = FORM) -> int | None:
    return upload_pages(bytearray(body), content_type.decode(), pdf_pages)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pdf(7), 7),
        (b"a mail head\r\n" + pdf(7), 7),
        (tiff(5), 5),
        (tiff(5, thumbnails=5), 5),
        (tiff(3, order=">"), 3),
        (tiff(3, big=True), 3),
        (tiff(3, big=True, order=">"), 3),
        (PNG, 1),
        (b"RIFF\0\0\0\0WEBPVP8 ", 1),
        (pdf(3, encrypted=True), None),
        (pdf(7)[:60], None),
        (tiff(2, loops=True), None),
        (tiff(2)[:-10], None),
        (tiff(0, thumbnails=1), None),
        (b"II*\0", None),
        (b"II*\0\x08\0\0\0\xff\xff", None),
        (tiff(MAX_PAGES + 1), None),
        (b"PK\x03\x04 a document of another kind", None),
        (b"x", None),
    ],
)
def test_a_file_counts_by_its_bytes(body: bytes, expected: int | None) -> None:
    assert pages(body, b"application/pdf") == expected
    assert pages(form(body)) == expected


def test_the_files_of_a_form_are_added() -> None:
    assert pages(form(pdf(7), PNG, tiff(4), fields={"async": "true", "file": "no file"})) == 12


def test_a_form_may_begin_with_other_text() -> None:
    assert pages(b"preamble\r\n" + form(pdf(2))) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--" + BOUNDARY,
        form(),
        form(fields={"urls": "https://example.com/a.pdf"}),
        form(pdf(2), b"unknown"),
        form(pdf(2))[:-30],
        form(pdf(2), head=b"Content-Transfer-Encoding: base64\r\n"),
        form(pdf(2), head=b"X-Long: " + b"x" * 9000 + b"\r\n"),
        form(*[PNG] * 300),
        form(pdf(2), tiff(MAX_PAGES)),
    ],
)
def test_the_pages_of_other_forms_are_unknown(body: bytes) -> None:
    assert pages(body) is None


@pytest.mark.parametrize("content_type", [b"multipart/form-data", b"multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_unknown(content_type: bytes) -> None:
    assert pages(form(pdf(2)), content_type) is None


def test_a_form_that_takes_too_long_to_search_is_unknown() -> None:
    assert pages(form(pdf(2), pdf(2, padding=17 * 1024 * 1024))) is None


@given(
    body=st.binary(max_size=200), start=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"--x\r\n"])
)
def test_no_bytes_raise_an_error(body: bytes, start: bytes) -> None:
    for content_type in (b"image/tiff", b"multipart/form-data; boundary=x"):
        count = pages(start + body, content_type)
        assert count is None or count >= 1
