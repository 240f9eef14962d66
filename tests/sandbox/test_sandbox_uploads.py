"""Uploads in every documented format, over a real socket."""

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


async def new_workflow(client):
    return f"/api/v4/workflows/{(await (await client.post('/api/v4/workflows')).json())['id']}"


async def raw(client, *pieces, read_first=()):
    """Sends `pieces`, reads a head after each piece whose number is in `read_first`, and returns the responses."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
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


async def test_a_large_upload_is_hashed_whole_without_holding_it_in_memory(sandbox):
    client = await sandbox()
    block = bytes(range(256)) * 4096

    async def blocks():
        for _ in range(48):
            yield block

    data = aiohttp.FormData()
    data.add_field("file", blocks(), filename="big.pdf")
    url = await new_workflow(client)
    tracemalloc.start()
    try:
        document = await (await client.post(f"{url}/documents", data=data)).json()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert document["size"] == 48 * len(block)
    assert document["sha256"] == hashlib.sha256(block * 48).hexdigest()
    assert peak_bytes < 16 * 1024 * 1024


async def test_a_small_file_can_be_fetched_and_a_large_file_is_not_kept(sandbox):
    client = await sandbox()
    url = f"{await new_workflow(client)}/documents"
    small, large = b"x" * MAX_ORIGINAL_BYTES, b"x" * (MAX_ORIGINAL_BYTES + 1)
    for content, status in ((small, 200), (large, 404)):
        document = await (await client.post(url, data=form(a=io.BytesIO(content)))).json()
        response = await client.get(f"{url}/{document['document_id']}/original")
        assert response.status == status
        if status == 200:
            assert await response.read() == content
        else:
            assert (await response.json())["message"] == "Original file not kept"


async def test_several_files_are_each_hashed(sandbox):
    client = await sandbox()
    data = form(a=b"first", b=b"", c=b"third")
    data.add_field("files", b"fourth", filename="d.pdf")
    data.add_field("request_metadata", "mine")
    content = await (await client.post(PREDICT, data=data)).json()
    contents = {"a.pdf": b"first", "b.pdf": b"", "c.pdf": b"third", "d.pdf": b"fourth"}
    assert content["files"] == [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]
    assert [entry["input"] for entry in content["result"]] == list(contents)
    assert {entry["request_metadata"] for entry in content["result"]} == {"mine"}


async def test_a_v4_upload_of_several_files_creates_several_documents(sandbox):
    client = await sandbox()
    url = f"{await new_workflow(client)}/documents"
    content = await (await client.post(url, data=form(a=b"1", b=b"22"))).json()
    assert [document["size"] for document in content["documents"]] == [1, 2]


async def test_a_form_with_several_urls_gets_a_prediction_for_each(sandbox):
    client = await sandbox()
    data = [("urls", "https://files.invalid/a.pdf"), ("urls", "https://files.invalid/b.pdf"), ("x", "")]
    content = await (await client.post("/api/v2/OCR/Model/m1/LabelUrls", data=data)).json()
    assert [entry["input"] for entry in content["result"]] == [url for _, url in data[:2]]


async def test_a_document_url_in_json_creates_a_document(sandbox):
    client = await sandbox()
    url = f"{await new_workflow(client)}/documents"
    body = {"document_url": "https://files.invalid/a.pdf", "async": True, "metadata": {"a": 1}}
    document = await (await client.post(url, json=body)).json()
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
async def test_an_invalid_upload_gets_400_with_a_reason(sandbox, headers, body):
    client = await sandbox()
    response = await client.post(PREDICT, data=body, headers=headers)
    content = await response.json()
    assert (response.status, content["code"]) == (400, "bad_request")
    assert content["message"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_above_the_limit_gets_413(sandbox, chunked):
    client = await sandbox(max_body_bytes=100_000)

    async def blocks():
        for _ in range(2):
            yield bytes(60_000)

    content = blocks() if chunked else io.BytesIO(bytes(120_000))
    response = await client.post(PREDICT, data=form(a=content))
    assert (response.status, (await response.json())["code"]) == (413, "payload_too_large")


async def test_json_and_form_fields_have_limits_too(sandbox):
    client = await sandbox()
    response = await client.post("/api/v4/workflows", data=io.BytesIO(bytes(2**20 + 1)))
    assert (response.status, (await response.json())["code"]) == (413, "payload_too_large")
    data = form(a=b"hello")
    data.add_field("metadata", "x" * 70_000)
    assert (await client.post(PREDICT, data=data)).status == 413


async def test_a_chunked_upload_is_read_to_its_last_chunk(sandbox):
    client = await sandbox()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, PART[i : i + 1]) for i in range(len(PART))) + b"0\r\n\r\n"
    head = f"POST {PREDICT} HTTP/1.1\r\n{HEAD}{MULTIPART}Transfer-Encoding: chunked\r\n\r\n"
    got = await raw(client, head.encode(), chunks)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert hashlib.sha256(b"hello").hexdigest().encode() in got


async def test_a_caller_that_expects_a_100_gets_it_before_the_body_is_read(sandbox):
    client = await sandbox()
    head = (
        f"POST {PREDICT} HTTP/1.1\r\n{HEAD}{MULTIPART}Expect: 100-continue\r\nContent-Length: {len(PART)}\r\n\r\n"
    )
    got = await raw(client, head.encode(), PART, read_first=[0])
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
async def test_a_rejected_upload_gets_no_100(sandbox, settings, expectation, status):
    client = await sandbox(**settings)
    head = f"POST {PREDICT} HTTP/1.1\r\n{HEAD}{MULTIPART}Expect: {expectation}\r\nContent-Length: 99\r\n\r\n"
    got = await raw(client, head.encode())
    assert got.startswith(b"HTTP/1.1 " + status)
    assert got.count(b"HTTP/1.1") == 1


async def test_invalid_utf8_is_accepted(sandbox):
    client = await sandbox()
    part = PART.replace(b"a.pdf", b"\xe9.pdf")
    head = f"POST {PREDICT}?x=%E9 HTTP/1.1\r\n{HEAD}{MULTIPART}Content-Length: {len(part)}\r\n\r\n"
    assert (await raw(client, head.encode(), part)).startswith(b"HTTP/1.1 200 ")
    body = b'{"urls": ["\\udce9"]}'
    head = f"POST {PREDICT} HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    assert (await raw(client, head.encode(), body)).startswith(b"HTTP/1.1 200 ")
