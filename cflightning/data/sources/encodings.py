"""Text encodings: UTF-8, UTF-16, a named one, or a guess."""

from __future__ import annotations

import codecs
import io
import logging
import re

from cflightning.errors import DataError

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_LEGACY = (
    "cp1252", "cp1250", "cp1251", "gb18030", "big5", "cp932", "euc_jp", "cp949", "koi8_r", "cp1253", "cp1254", "cp1255",
    "cp1256", "cp1257", "cp874",
)  # fmt: skip
"""Candidate encodings of a guess, most common first."""
_SAMPLE = 1 << 16
"""Bytes of non-ASCII lines on which a guess rests."""
_REMEDY = "correct the file, or name its encoding, for example --data.table.encoding cp1252"


def check_encoding(name: str | None) -> None:
    """Check that Python supports a text encoding.

    Raises:
        DataError: There is no such encoding.
    """
    if name is None:
        return
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise DataError(
            "--data.table.encoding: must be an encoding such as utf-8, cp1252, cp1251, gb18030 or utf-16, got "
            f"{name[:40]!r}"
        ) from error


def unicode_of(head: bytes) -> str | None:
    """Detect UTF-16 or UTF-32 by a byte order mark or by zeros in every other byte; None otherwise."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if head.startswith(mark):
            return name
    sample = head[: min(len(head), 64) // 2 * 2]  # the header
    low, high = sample[::2], sample[1::2]
    for name, zeros, others in (("utf-16-le", high, low), ("utf-16-be", low, high)):
        if zeros and zeros.count(0) > 0.7 * len(zeros) and 0 not in others:
            return name
    return None


def to_utf8(raw: bytes, name: str, encoding: str | None = None) -> bytes:
    """Return text as UTF-8; arguments and errors as for `recode`."""
    return recode(raw, name, encoding)[0]


def recode(raw: bytes, name: str, encoding: str | None = None) -> tuple[bytes, str]:
    """Convert text to UTF-8 without a byte order mark, and return the original encoding as well.

    Args:
        raw: Content of the file.
        name: Name of the file in messages.
        encoding: Encoding that the user named; None for UTF-8, else UTF-16 or UTF-32 if detected, else a guess.

    Raises:
        DataError: Bytes are invalid in the encoding, or a few bytes of a UTF-8 file are.
    """
    check_encoding(encoding)
    if encoding is None:
        if raw.isascii():
            return raw, "UTF-8"
        encoding = unicode_of(raw[:1024])
    if encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii"):
        bad = _first_bad(raw, "utf-8")
        if bad is None:
            return raw.removeprefix(codecs.BOM_UTF8), "UTF-8"
        count, good = _count_bad(raw)
        if encoding is not None or count <= good:
            line, column = _place(raw, bad)
            more = f", and {count - 1:,} more such byte{'s' if count > 2 else ''}" if count > 1 else ""
            raise DataError(
                f"{name}: line {line}: must be UTF-8, but byte {column} of the line (byte {bad + 1:,} of the file) is "
                f"0x{raw[bad]:02x}{more}; {_REMEDY}"
            )
        encoding = _guess(raw)
        log.warning(
            "%s: is not UTF-8 (line %d, byte %d) and is read as %s, which is a guess; --data.table.encoding names "
            "another",
            name, *_place(raw, bad), encoding,
        )  # fmt: skip
    out = io.BytesIO()
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for start in range(0, len(raw), _BLOCK):
            out.write(decoder.decode(raw[start : start + _BLOCK]).encode("utf-8"))
        out.write(decoder.decode(b"", final=True).encode("utf-8"))
    except UnicodeError as error:
        line, column = _place(raw, _first_bad(raw, encoding) or 0)
        raise DataError(
            f"{name}: line {line}: must be {encoding}, but byte {column} of the line is none ({str(error)[:100]}); "
            f"{_REMEDY}"
        ) from error
    return out.getvalue().removeprefix(codecs.BOM_UTF8), encoding


def _first_bad(raw: bytes, encoding: str) -> int | None:
    """Return the position of the first byte that cannot be decoded, or None."""
    decoder = codecs.getincrementaldecoder(encoding)()
    for start in range(0, len(raw), _BLOCK):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(raw[start : start + _BLOCK], final=start + _BLOCK >= len(raw))
        except UnicodeDecodeError as error:
            return start - held + error.start
        except UnicodeError:  # UTF-16 without its mark
            return start
    return None


def _count_bad(raw: bytes) -> tuple[int, int]:
    """Count invalid bytes and valid non-ASCII characters of UTF-8; stops when invalid ones clearly prevail."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    bad = beyond = 0
    for start in range(0, len(raw), _BLOCK):
        text = decoder.decode(raw[start : start + _BLOCK], final=start + _BLOCK >= len(raw))
        bad += len(re.findall("[\udc80-\udcff]", text))
        beyond += len(re.findall("[^\x00-\x7f]", text))
        if bad > 10_000 and bad > beyond - bad:
            break  # surely another encoding
    return bad, beyond - bad


def _place(raw: bytes, at: int) -> tuple[int, int]:
    """Return the 1-based line of a byte and the 1-based position in the line."""
    return raw.count(b"\n", 0, at) + 1, at - raw.rfind(b"\n", 0, at)


def _guess(raw: bytes) -> str:
    """Guess an encoding that decodes all bytes, ranked on a sample of the non-ASCII lines."""
    from charset_normalizer import from_bytes

    lines = re.finditer(rb"[^\n]*[\x80-\xff][^\n]*\n?", raw)
    sample, size = [], 0
    for line in lines:
        sample.append(line[0])
        size += len(sample[-1])
        if size > _SAMPLE:
            break
    ranked = sorted(
        ((match.chaos, -match.coherence, _LEGACY.index(name), name)
         for match in from_bytes(b"".join(sample), cp_isolation=list(_LEGACY))
         for name in match.could_be_from_charset if name in _LEGACY),
    )  # fmt: skip
    names = [name for *_, name in ranked] + ["cp1252"]
    return next((name for name in names if _first_bad(raw, name) is None), "latin-1")
