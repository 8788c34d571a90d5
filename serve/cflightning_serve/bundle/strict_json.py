"""Strict JSON, parsed at once or incrementally.

Python runs no other thread while :mod:`json` parses a document. The incremental parser cuts a document into pieces of
about a thousand scalars by regular expressions, parses each piece with :mod:`json`, and pauses between the pieces.
"""

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from cflightning_serve.bundle.files import REMEDY
from cflightning_serve.errors import BundleError

Json: TypeAlias = Any
"""A parsed JSON value of unknown structure, to be validated before use."""
JSON_TYPE_NAMES = {dict: "object", list: "array", str: "string", int: "integer", float: "number", type(None): "null"}
"""Python type -> name of the JSON type; booleans are handled by :func:`json_type_name`."""
MAX_PIECE_VALUES = 1024
"""Scalars in a piece, which takes about a millisecond."""
DECODED_BYTES = 1 << 20
"""Size of the blocks that are decoded from UTF-8 between two pauses, in bytes."""
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_SCALAR = rf"(?:{_STRING}|[^\s\"\[\]{{}},:]++)"
_SPACE = re.compile(r"[ \t\n\r]*+")
_ONE_KEY = re.compile(_STRING, re.DOTALL)
_ONE_SCALAR = re.compile(_SCALAR, re.DOTALL)
_SCALARS = re.compile(rf"(?:\s*+{_SCALAR}\s*+,){{1,{MAX_PIECE_VALUES}}}+", re.DOTALL)
_PAIRS = re.compile(rf"(?:\s*+{_STRING}\s*+:\s*+{_SCALAR}\s*+,){{1,{MAX_PIECE_VALUES}}}+", re.DOTALL)


def parse_json(path: Path, data: bytes, pause: Callable[[], None] | None = None) -> Json:
    """Parse UTF-8 JSON strictly: ``NaN``, ``Infinity`` and unpaired surrogates are refused.

    Args:
        path: the file, for messages.
        data: its bytes.
        pause: called between pieces, so that other threads can run; may raise. None parses at once.

    Raises:
        BundleError: the bytes are not strict JSON.
    """
    try:
        if pause is None:
            return _parse_text(data.decode("utf-8"))
        decoder = codecs.getincrementaldecoder("utf-8")()
        parts = []
        for begin in range(0, len(data), DECODED_BYTES):
            parts.append(decoder.decode(data[begin : begin + DECODED_BYTES]))
            pause()
        return parse_incrementally("".join([*parts, decoder.decode(b"", final=True)]), _parse_text, pause)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: must be UTF-8 JSON, is not: {str(error)[:200]}; {REMEDY}") from error


def parse_object(path: Path, data: bytes) -> dict[str, Json]:
    """Parse bytes that must be one JSON object; see :func:`parse_json`."""
    value = parse_json(path, data)
    if type(value) is not dict:
        raise BundleError(f"{path}: must be one JSON object, is of type {json_type_name(value)}; {REMEDY}")
    return value


def json_type_name(value: Json) -> str:
    """Return the name of a value's JSON type."""
    return "boolean" if type(value) is bool else JSON_TYPE_NAMES[type(value)]


def parse_incrementally(text: str, parse: Callable[[str], Json], pause: Callable[[], None]) -> Json:
    """Parse a JSON document piece by piece.

    Args:
        text: the document.
        parse: parses one piece at once.
        pause: called after each piece; may raise.

    Returns:
        The value that ``parse`` would return for the whole text.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: it is nested too deeply.
    """
    parser = _IncrementalParser(text, parse, pause)
    value, end = parser.value(parser.skip_space(0))
    if parser.skip_space(end) != len(text):
        raise ValueError(f"unexpected data after the document at {end}")
    return value


def _parse_text(text: str) -> Json:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    if "\\u" in text:  # the only way to write an unpaired surrogate
        json.dumps(value, ensure_ascii=False).encode()
    return value


class _IncrementalParser:
    """A recursive-descent parser that returns each value with the offset of its end."""

    def __init__(self, text: str, parse: Callable[[str], Json], pause: Callable[[], None]) -> None:
        self._text, self._parse, self._pause = text, parse, pause

    def skip_space(self, at: int) -> int:
        space = _SPACE.match(self._text, at)
        return space.end() if space else at

    def value(self, at: int) -> tuple[Json, int]:
        first = self._text[at : at + 1]
        if first == "[":
            return self._array(at + 1)
        if first == "{":
            return self._object(at + 1)
        scalar = _ONE_SCALAR.match(self._text, at)
        if scalar is None:
            raise ValueError(f"expected a value at {at}")
        return self._parse(scalar[0]), scalar.end()

    def _array(self, at: int) -> tuple[list[Json], int]:
        values: list[Json] = []
        at = self.skip_space(at)
        if self._text[at : at + 1] == "]":
            return values, at + 1
        while True:
            while piece := _SCALARS.match(self._text, at):
                values += self._parse(f"[{piece[0][:-1]}]")
                at = piece.end()
                self._pause()
            value, at = self.value(self.skip_space(at))
            values.append(value)
            at = self.skip_space(at) + 1
            if self._is_end("]", at - 1):
                return values, at

    def _object(self, at: int) -> tuple[dict[str, Json], int]:
        pairs: dict[str, Json] = {}
        at = self.skip_space(at)
        if self._text[at : at + 1] == "}":
            return pairs, at + 1
        while True:
            while piece := _PAIRS.match(self._text, at):
                pairs |= self._parse(f"{{{piece[0][:-1]}}}")
                at = piece.end()
                self._pause()
            key = _ONE_KEY.match(self._text, self.skip_space(at))
            if key is None:
                raise ValueError(f"expected a key at {at}")
            colon = self.skip_space(key.end())
            if self._text[colon : colon + 1] != ":":
                raise ValueError(f"expected a colon at {colon}")
            pairs[self._parse(key[0])], at = self.value(self.skip_space(colon + 1))
            at = self.skip_space(at) + 1
            if self._is_end("}", at - 1):
                return pairs, at

    def _is_end(self, bracket: str, at: int) -> bool:
        """Return whether the array or object ends at an offset; if not, there must be a comma."""
        mark = self._text[at : at + 1]
        if mark not in (",", bracket) or not mark:
            raise ValueError(f"expected a comma or {bracket} at {at}")
        return mark == bracket
