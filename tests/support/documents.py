"""PDF and TIFF files, and forms with files, for the counting of pages."""

import struct
import zlib
from io import BytesIO

BOUNDARY = b"----form7MA4YWxk"
FORM = b"multipart/form-data; boundary=" + BOUNDARY


def pdf(pages: int, padding: int = 0, encrypted: bool = False) -> bytes:
    """Returns a PDF file with this many empty pages, and a stream of `padding` bytes."""
    kids = b" ".join(b"%d 0 R" % (3 + page) for page in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, kids),
        *[b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>"] * pages,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (padding, b"x" * padding),
    ]
    file = BytesIO()
    file.write(b"%PDF-1.4\n")
    places = []
    for number, text in enumerate(objects, 1):
        places.append(file.tell())
        file.write(b"%d 0 obj\n%s\nendobj\n" % (number, text))
    table_at = file.tell()
    file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1))
    for place in places:
        file.write(b"%010d 00000 n \n" % place)
    encryption = (
        b" /ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>"
        % (b"11" * 32, b"22" * 32)
        if encrypted
        else b""
    )
    trailer = b"trailer << /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n"
    file.write(trailer % (len(places) + 1, encryption, table_at))
    return file.getvalue()


def pdf_bomb(megabytes: int) -> bytes:
    """Returns a PDF file whose root is in a compressed stream that expands to this size."""
    catalog = b"3 0 << /Type /Catalog /Pages 4 0 R >>"
    packed = zlib.compress(catalog + bytes(megabytes << 20), 1)
    start = b"%PDF-1.5\n"
    root = b"1 0 obj\n<< /Type /ObjStm /N 1 /First 4 /Filter /FlateDecode /Length %d >>\n" % len(packed)
    objects = start + root + b"stream\n" + packed + b"\nendstream\nendobj\n"
    table = b"".join(
        kind.to_bytes(1, "big") + first.to_bytes(4, "big") + second.to_bytes(2, "big")
        for kind, first, second in ((0, 0, 0), (1, len(start), 0), (1, len(objects), 0), (2, 1, 0))
    )
    head = b"2 0 obj\n<< /Type /XRef /Size 4 /W [1 4 2] /Root 3 0 R /Length %d >>\nstream\n" % len(table)
    end = b"\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n" % len(objects)
    return objects + head + table + end


def tiff(pages: int, *, thumbnails: int = 0, big: bool = False, order: str = "<", loops: bool = False) -> bytes:
    """Returns a TIFF file without any pixels. If it `loops`, its last directory names the first one as the next."""
    number = "Q" if big else "I"
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "2sHHH", mark, 43, 8, 0) if big else struct.pack(order + "2sH", mark, 42)
    first_at = len(head) + struct.calcsize(number)
    file = bytearray(head + struct.pack(order + number, first_at))
    kinds = [0] * pages + [1] * thumbnails
    for place, kind in enumerate(kinds):
        tags = [(254, 4, 1, kind), (256, 4, 1, 100)]
        directory = struct.pack(order + ("Q" if big else "H"), len(tags))
        for tag, type_, count, value in tags:
            directory += struct.pack(order + "HH" + number * 2, tag, type_, count, 0)[: -struct.calcsize(number)]
            directory += struct.pack(order + "I", value).ljust(struct.calcsize(number), b"\0")
        next_at = len(file) + len(directory) + struct.calcsize(number)
        if place == len(kinds) - 1:
            next_at = first_at if loops else 0
        file += directory + struct.pack(order + number, next_at)
    return bytes(file)


def form(*files: bytes, fields: dict[str, str] | None = None, head: bytes = b"") -> bytes:
    """Returns a form with these files, each with the header fields `head`, after some text fields."""
    parts = [b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), value.encode())
             for name, value in (fields or {}).items()]  # fmt: skip
    start = b'Content-Disposition: form-data; name="file"; filename="a.pdf"\r\nContent-Type: application/pdf\r\n'
    parts += [start + head + b"\r\n" + file for file in files]
    return b"".join(b"--%s\r\n%s\r\n" % (BOUNDARY, part) for part in parts) + b"--%s--\r\n" % BOUNDARY
