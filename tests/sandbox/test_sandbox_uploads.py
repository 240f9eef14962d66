"""Uploads in every documented form, as bytes on a real socket."""

import asyncio
import base64
import hashlib
import io
import tracemalloc

import aiohttp
import pytest

from nanonets_proxy.sandbox.store import MAX_ORIGINAL_BYTES

PREDICT = "/api/v2/OCR/Model/m1/LabelFile/"
HEAD = "Host: sandbox\r\nAuthorization: Basic " + base64.b64encode(b"sandbox-key:").decode() + "\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\nhello\r\n--b--\r\n'
MULTIPART = "Content-Type: multipart/form-data; boundary=b\r\n"


def form(**files):
    data = aiohttp.FormData()
    for name, content in files.items():
        data.add_field("file", content, filename=f"{name}.pdf")
    return data


async def new_workflow(http, base):
    return f"{base}/api/v4/workflows/{(await (await http.post(f'{base}/api/v4/workflows')).json())['id']}"


async def raw(base, *pieces, read_first=()):
    """Send bytes piece by piece, after each of the first ones waiting for a head; return all that comes."""
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    got = b""
    try:
        for number, piece in enumerate(pieces):
            writer.write(piece)
            if number in read_first:
                got += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        got += await asyncio.wait_for(reader.read(65536), 5)
    finally:
        writer.close()
    return got


async def test_a_large_upload_passes_whole_and_is_never_held_in_memory(start, http):
    base = await start()
    block = bytes(range(256)) * 4096

    async def blocks():
        for _ in range(48):
            yield block

    data = aiohttp.FormData()
    data.add_field("file", blocks(), filename="big.pdf")
    url = await new_workflow(http, base)
    tracemalloc.start()
    try:
        document = await (await http.post(f"{url}/documents", data=data)).json()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert document["size"] == 48 * len(block)
    assert document["sha256"] == hashlib.sha256(block * 48).hexdigest()
    assert peak_bytes < 16 * 1024 * 1024


async def test_a_small_file_can_be_fetched_and_a_large_one_is_named_as_not_kept(start, http):
    base = await start()
    url = f"{await new_workflow(http, base)}/documents"
    small, large = b"x" * MAX_ORIGINAL_BYTES, b"x" * (MAX_ORIGINAL_BYTES + 1)
    for content, status in ((small, 200), (large, 404)):
        document = await (await http.post(url, data=form(a=io.BytesIO(content)))).json()
        response = await http.get(f"{url}/{document['document_id']}/original")
        assert response.status == status
        if status == 200:
            assert await response.read() == content
        else:
            assert (await response.json())["message"] == "Original file not kept"


async def test_several_files_are_each_hashed(start, http):
    base = await start()
    data = form(a=b"first", b=b"", c=b"third")
    data.add_field("files", b"fourth", filename="d.pdf")
    data.add_field("request_metadata", "mine")
    content = await (await http.post(base + PREDICT, data=data)).json()
    contents = {"a.pdf": b"first", "b.pdf": b"", "c.pdf": b"third", "d.pdf": b"fourth"}
    assert content["files"] == [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]
    assert [entry["input"] for entry in content["result"]] == list(contents)
    assert {entry["request_metadata"] for entry in content["result"]} == {"mine"}


async def test_several_files_of_a_v4_upload_give_several_documents(start, http):
    base = await start()
    url = f"{await new_workflow(http, base)}/documents"
    content = await (await http.post(url, data=form(a=b"1", b=b"22"))).json()
    assert [document["size"] for document in content["documents"]] == [1, 2]


async def test_repeated_urls_of_a_form_are_each_predicted(start, http):
    base = await start()
    data = [("urls", "https://files.invalid/a.pdf"), ("urls", "https://files.invalid/b.pdf"), ("x", "")]
    content = await (await http.post(f"{base}/api/v2/OCR/Model/m1/LabelUrls", data=data)).json()
    assert [entry["input"] for entry in content["result"]] == [url for _, url in data[:2]]


async def test_a_document_url_in_json_makes_a_document(start, http):
    base = await start()
    url = f"{await new_workflow(http, base)}/documents"
    body = {"document_url": "https://files.invalid/a.pdf", "async": True, "metadata": {"a": 1}}
    document = await (await http.post(url, json=body)).json()
    assert (document["status"], document["pages"], document["size"]) == ("pending", [], None)
    assert document["metadata"] == {"a": 1}
    assert document["original_document_name"] == "https://files.invalid/a.pdf"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json"}, b""),
        ({"Content-Type": "application/json"}, b"{"),
        ({"Content-Type": "application/json"}, b"[]"),
        ({"Content-Type": "application/json"}, b"[" * 100_000),
        ({"Content-Type": "application/json"}, b'{"document_url": 1}'),
        ({"Content-Type": "application/json"}, b'{"urls": ["a", ""]}'),
        ({"Content-Type": "application/json"}, b'{"urls": [' + b'"a",' * 20 + b'"a"]}'),
        ({"Content-Type": "text/plain"}, b"hello"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"url=a"),
        ({"Content-Type": "multipart/form-data"}, PART),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b""),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"nothing"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, PART[:-12]),
        ({"Content-Type": "multipart/form-data; boundary=b"}, PART.replace(b'"file"', b'"other"')),
        ({"Content-Type": "multipart/form-data; boundary=b"}, PART.replace(b'name="file"; ', b"")),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--\r\n",
        ),
        ({"Content-Type": "multipart/form-data; boundary=b"}, PART[:-7] * 20 + PART),
        ({"Content-Type": "multipart/form-data; boundary=b"}, PART[:-7] * 100 + PART),
    ],
)
async def test_an_upload_that_makes_no_sense_gets_a_400_with_a_reason(start, http, headers, body):
    base = await start()
    response = await http.post(base + PREDICT, data=body, headers=headers)
    content = await response.json()
    assert (response.status, content["code"]) == (400, "bad_request")
    assert content["message"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_beyond_the_limit_gets_413(start, http, chunked):
    base = await start(max_body_bytes=100_000)

    async def blocks():
        for _ in range(2):
            yield bytes(60_000)

    content = blocks() if chunked else io.BytesIO(bytes(120_000))
    response = await http.post(base + PREDICT, data=form(a=content))
    assert (response.status, (await response.json())["code"]) == (413, "payload_too_large")


async def test_json_and_form_fields_are_bounded_too(start, http):
    base = await start()
    response = await http.post(f"{base}/api/v4/workflows", data=io.BytesIO(bytes(2**20 + 1)))
    assert (response.status, (await response.json())["code"]) == (413, "payload_too_large")
    data = form(a=b"hello")
    data.add_field("metadata", "x" * 70_000)
    assert (await http.post(base + PREDICT, data=data)).status == 413


async def test_a_chunked_upload_is_read_to_its_last_chunk(start):
    base = await start()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, PART[i : i + 1]) for i in range(len(PART))) + b"0\r\n\r\n"
    head = f"POST {PREDICT} HTTP/1.1\r\n{HEAD}{MULTIPART}Transfer-Encoding: chunked\r\n\r\n"
    got = await raw(base, head.encode(), chunks)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert hashlib.sha256(b"hello").hexdigest().encode() in got


async def test_a_body_is_invited_with_100_continue_when_it_is_wanted(start):
    base = await start()
    head = (
        f"POST {PREDICT} HTTP/1.1\r\n{HEAD}{MULTIPART}Expect: 100-continue\r\nContent-Length: {len(PART)}\r\n\r\n"
    )
    got = await raw(base, head.encode(), PART, read_first=[0])
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("settings", "expectation", "status"),
    [
        ({"api_keys": ()}, "100-continue", b"401"),
        ({"failure_rate": 1}, "100-continue", b"503"),
        ({"max_body_bytes": 10}, "100-continue", b"413"),
        ({}, "a-miracle", b"417"),
    ],
)
async def test_a_refused_upload_is_not_invited(start, settings, expectation, status):
    base = await start(**settings)
    head = f"POST {PREDICT} HTTP/1.1\r\n{HEAD}{MULTIPART}Expect: {expectation}\r\nContent-Length: 99\r\n\r\n"
    got = await raw(base, head.encode())
    assert got.startswith(b"HTTP/1.1 " + status)
    assert got.count(b"HTTP/1.1") == 1


async def test_bytes_that_are_no_utf8_break_nothing(start):
    base = await start()
    part = PART.replace(b"a.pdf", b"\xe9.pdf")
    head = f"POST {PREDICT}?x=%E9 HTTP/1.1\r\n{HEAD}{MULTIPART}Content-Length: {len(part)}\r\n\r\n"
    assert (await raw(base, head.encode(), part)).startswith(b"HTTP/1.1 200 ")
    body = b'{"urls": ["\\udce9"]}'
    head = f"POST {PREDICT} HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    assert (await raw(base, head.encode(), body)).startswith(b"HTTP/1.1 200 ")
