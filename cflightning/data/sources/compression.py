"""Compression and file formats, detected by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from typing import Protocol

from cflightning.data.sources.encodings import check_encoding, unicode_of
from cflightning.data.sources.limits import check_size
from cflightning.errors import DataError

HEAD = 1 << 16
"""Bytes at the start of a file that are read to detect its format."""
_BLOCK = 1 << 22
_ZSTD, _LZ4 = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"

DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
"""Errors of the standard library's readers for damaged archives, beside OSError."""

FORMATS: dict[bytes, str] = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"FEA1": "feather",
    b"\xff\xff\xff\xff": "arrow stream",
    b"ORC": "orc",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
"""Supported binary formats by their first bytes."""
_UNSUPPORTED: dict[bytes, str] = {  # first bytes -> description and advice for the message
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook (or another Office document); save its sheet as CSV",
    b"SQLite format 3\x00": "an SQLite database; write the query's rows as CSV or Parquet",
    b"\x89HDF\r\n": "an HDF5 file; write the frame with to_parquet",
    b"\x93NUMPY": "a NumPy array; write user, item and rating as columns of a CSV or Parquet file",
    b"Obj\x01": "an Avro file; write it as Parquet",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"%PDF-": "a PDF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x80\x02": "a pickle, which could run code; write the frame with to_parquet",
    b"\x80\x03": "a pickle, which could run code; write the frame with to_parquet",
    b"\x80\x04": "a pickle, which could run code; write the frame with to_parquet",
    b"\x80\x05": "a pickle, which could run code; write the frame with to_parquet",
    b"\xff\x06\x00\x00sNaPpY": "a Snappy file; unpack it",
}
SUPPORTED_FORMATS = (
    "CSV, TSV and other delimited text, JSON lines, Parquet, Arrow (Feather), ORC; plain, .gz, .bz2, .xz, .zst or .zip"
)
"""Supported formats, for messages."""
_BINARY_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x01\x02\x03\x1a\x1b\x1c\x1d\x1e\x1f"))
"""Control characters that text files do not hold; others serve as delimiters."""

_JSON = re.compile(r"\s*(\[\s*)?\{\s*[\"'}]|\s*\[\s*[\[\]]")
"""Start of JSON; a column name of a text table may begin with a bracket as well."""


class ByteStream(Protocol):
    """A binary stream that can be read once."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; all that are left for -1."""


def decompressed(stream: io.BufferedReader | zipfile.ZipExtFile) -> ByteStream | None:
    """Return a decompressing stream, or None if the stream is not compressed.

    Args:
        stream: Binary stream at its start.
    """
    head = stream.peek(16)[:16]
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=stream)
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return bz2.BZ2File(stream)
    if head[:6] == b"\xfd7zXZ\x00" or head[:5] == b"\x5d\x00\x00\x80\x00":
        return lzma.LZMAFile(stream)  # type: ignore[arg-type]  # it reads any binary stream
    if head[:4] in (_ZSTD, _LZ4):
        import pyarrow as pa

        unpacked: ByteStream = pa.CompressedInputStream(
            pa.PythonFile(stream, mode="r"), "zstd" if head[:4] == _ZSTD else "lz4"
        )
        return unpacked
    return None


def read_all(stream: ByteStream, name: str, packed: int | None, declared: int | None = None) -> bytes:
    """Read a stream to its end within the limits.

    Args:
        stream: Binary stream.
        name: Name in messages.
        packed: Bytes on disk of a compressed source.
        declared: Declared size of the stream, bytes.

    Raises:
        DataError: The stream exceeds the limits.
    """
    if declared is not None:
        check_size(name, declared, packed)
        content = stream.read(declared)
        if not (more := stream.read(1)):
            return content
        blocks = io.BytesIO(content + more)  # longer than declared
    else:
        blocks = io.BytesIO()
    size = blocks.seek(0, io.SEEK_END)
    while block := stream.read(_BLOCK):
        size += len(block)
        check_size(name, size, packed)
        blocks.write(block)
    return blocks.getvalue()


def detect_format(head: bytes, name: str, encoding: str | None = None) -> str:
    """Detect the format of a file: one of `FORMATS`, `json` or `text`.

    Args:
        head: First unpacked bytes.
        name: Name in messages, which never quote binary content.
        encoding: Text encoding that the user named; None to detect it.

    Raises:
        DataError: The format is not supported.
    """
    for magic, format_name in FORMATS.items():
        if head.startswith(magic):
            return format_name
    refusal = next((text for magic, text in _UNSUPPORTED.items() if head.startswith(magic)), "")
    if head[257:262] == b"ustar":
        refusal = "a tar archive; unpack it"
    if decompressed(io.BufferedReader(io.BytesIO(head))) is not None:
        refusal = "compressed more than once; unpack it"
    check_encoding(encoding)
    encoding = encoding or unicode_of(head)
    if (
        not refusal
        and encoding is None
        and (b"\x00" in head or len(head.translate(None, _BINARY_CONTROLS)) < 0.95 * len(head))
    ):
        refusal = "a binary file of a format that is not known here"
    if refusal:
        raise DataError(f"{name}: must be a table, but is {refusal}; these are read: {SUPPORTED_FORMATS}")
    start = head.decode(encoding or "utf-8", "ignore").removeprefix("\ufeff")
    return "json" if _JSON.match(start) else "text"


def refuse_documents(name: str, members: list[str]) -> None:
    """Check that a zip archive is not an office document or an archive of arrays.

    Args:
        name: Name of the archive in messages.
        members: Names of its members.

    Raises:
        DataError: It is one.
    """
    refusal = ""
    if "[Content_Types].xml" in members:
        refusal = (
            "an Excel workbook (or another Office document); save its sheet as CSV, or give from_frame a pandas frame"
        )
    elif "mimetype" in members:
        refusal = "an OpenDocument file; save its sheet as CSV"
    elif members and all(member.endswith(".npy") for member in members):
        refusal = "an archive of NumPy arrays; write user, item and rating as columns of a CSV or Parquet file"
    if refusal:
        raise DataError(f"{name}: must be a table, but is {refusal}; these are read: {SUPPORTED_FORMATS}")
