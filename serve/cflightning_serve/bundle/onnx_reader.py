"""A strict reader of ONNX files without the onnx package: operators, operator sets, metadata and external data.

It reads the wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding) by the field numbers of
``onnx.proto``. It refuses every unknown field: another reader might find a reference to a file there.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""
MAX_DEPTH = 8
"""Largest nesting depth of subgraphs."""
MAX_FIELDS = 5_000_000
"""Largest number of fields in a file; strings and integers of attributes and tensors are not counted."""
EXTERNAL = 1
"""``TensorProto.data_location`` of a tensor in another file."""


class _Field(NamedTuple):
    """Wire types that a field may have, and whether it may occur more than once in a message."""

    wires: tuple[int, ...]
    repeated: bool = False


_NUMBER, _TEXT = _Field((_VARINT,)), _Field((_BYTES,))
_TEXTS, _NUMBERS = _Field((_BYTES,), True), _Field((_VARINT, _BYTES), True)
_FLOATS, _DOUBLES = _Field((_FIXED32, _BYTES), True), _Field((_FIXED64, _BYTES), True)

# Allowed fields by number. Missing on purpose: training_info, functions and configuration of a model, sparse tensors,
# segments of tensors, device configurations of nodes.
_MODEL = {1: _NUMBER, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: _NUMBER, 6: _TEXT, 7: _TEXT, 8: _TEXTS, 14: _TEXTS}
_GRAPH = {1: _TEXTS, 2: _TEXT, 5: _TEXTS, 10: _TEXT, 11: _TEXTS, 12: _TEXTS, 13: _TEXTS, 14: _TEXTS, 16: _TEXTS}
_NODE = {1: _TEXTS, 2: _TEXTS, 3: _TEXT, 4: _TEXT, 5: _TEXTS, 6: _TEXT, 7: _TEXT, 8: _TEXT, 9: _TEXTS}
_ATTRIBUTE = {
    1: _TEXT, 2: _Field((_FIXED32,)), 3: _NUMBER, 4: _TEXT, 5: _TEXT, 6: _TEXT, 7: _FLOATS, 8: _NUMBERS, 9: _TEXTS,
    10: _TEXTS, 11: _TEXTS, 13: _TEXT, 14: _TEXT, 15: _TEXTS, 20: _NUMBER, 21: _TEXT,
}  # fmt: skip
_TENSOR = {
    1: _NUMBERS, 2: _NUMBER, 4: _FLOATS, 5: _NUMBERS, 6: _TEXTS, 7: _NUMBERS, 8: _TEXT, 9: _TEXT, 10: _DOUBLES,
    11: _NUMBERS, 12: _TEXT, 13: _TEXTS, 14: _NUMBER, 16: _TEXTS,
}  # fmt: skip
_OPERATOR_SET = {1: _TEXT, 2: _NUMBER}
_ENTRY = {1: _TEXT, 2: _TEXT}
_STRING_TAGS = {id(_TENSOR): 6 << 3 | _BYTES, id(_ATTRIBUTE): 9 << 3 | _BYTES}
"""Message -> tag of its strings, such as ids: there may be millions, and they are skipped."""
_INTEGERS = re.compile(rb"(?:\x40[\x80-\xff]{0,9}+[\x00-\x7f])*+")
"""Integers of an attribute, possibly millions: field 8, a varint each."""


class ExternalTensor(NamedTuple):
    """An initializer of the main graph whose data is in another file."""

    name: str
    type: int
    """Element type, a number of ``TensorProto.DataType``."""
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int | None


class Outline(NamedTuple):
    """The parts of a model that determine which files are read and which operators are run."""

    ir_version: int
    operator_sets: Mapping[str, int]
    """Domain -> version; "" is ai.onnx."""
    operators: frozenset[tuple[str, str]]
    """(domain, type) of every node, including those of subgraphs."""
    metadata: frozenset[str]
    """Keys of the model's metadata."""
    external: tuple[ExternalTensor, ...]


def read_outline(data: bytes, *, max_fields: int = MAX_FIELDS) -> Outline:
    """Read the outline of a model.

    Args:
        data: bytes of the ONNX file.
        max_fields: largest number of fields that are read.

    Raises:
        ValueError: the bytes are not an ONNX model, or contain unknown parts; the message names them.
    """
    try:
        return _Reader(data, max_fields).model()
    except IndexError:
        raise ValueError("is truncated inside a field") from None
    except UnicodeDecodeError:
        raise ValueError("has a name that is not UTF-8") from None


class _Reader:
    """One pass over a model.

    Args:
        data: bytes of the ONNX file.
        max_fields: largest number of fields that are read.
    """

    def __init__(self, data: bytes, max_fields: int) -> None:
        self._data = data
        self._max_fields = max_fields
        self._num_fields = 0
        self._operators: set[tuple[str, str]] = set()
        self._external: dict[str, ExternalTensor] = {}

    def model(self) -> Outline:
        """Read the model and all its subgraphs."""
        version, sets, metadata = 0, dict[str, int](), set[str]()
        for number, first, last in self._fields(_MODEL, 0, len(self._data)):
            if number == 1:  # ir_version
                version = first
            elif number == 7:  # graph
                self._graph(first, last, 0)
            elif number == 8:  # opset_import
                domain, release = self._operator_set(first, last)
                if domain in sets:
                    raise ValueError(f"has the operator set {domain or 'ai.onnx'!r} twice")
                sets[domain] = release
            elif number == 14:  # metadata_props
                metadata.add(self._entry(first, last)[0])
        return Outline(version, sets, frozenset(self._operators), frozenset(metadata), (*self._external.values(),))

    def _graph(self, begin: int, end: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(f"has subgraphs nested more than {MAX_DEPTH} deep")
        for number, first, last in self._fields(_GRAPH, begin, end):
            if number == 1:  # node
                self._node(first, last, depth)
            elif number == 5:  # initializer
                self._tensor(first, last, main=depth == 0)

    def _node(self, begin: int, end: int, depth: int) -> None:
        operator = domain = ""
        for number, first, last in self._fields(_NODE, begin, end):
            if number == 4:  # op_type
                operator = self._text(first, last)
            elif number == 7:  # domain
                domain = self._domain(first, last)
            elif number == 5:  # attribute
                self._attribute(first, last, depth)
            elif number == 8 and last > first:  # overload
                raise ValueError("calls a function of the model")
        self._operators.add((domain, operator))

    def _attribute(self, begin: int, end: int, depth: int) -> None:
        for number, first, last in self._fields(_ATTRIBUTE, begin, end):
            if number in (5, 10):  # t, tensors
                self._tensor(first, last, main=False)
            elif number in (6, 11):  # g, graphs
                self._graph(first, last, depth + 1)

    def _tensor(self, begin: int, end: int, *, main: bool) -> None:
        """Read a tensor; only an initializer of the main graph may have external data."""
        name, type_, data_location, has_inline_data = "", 0, 0, False
        shape: list[int] = []
        entries: dict[str, str] = {}
        for number, first, last in self._fields(_TENSOR, begin, end):
            if number == 1:  # dims
                shape += self._packed(first, last)
            elif number == 2:  # data_type
                type_ = first
            elif number == 8:  # name
                name = self._text(first, last)
            elif number == 13:  # external_data
                key, value = self._entry(first, last)
                if key not in ("location", "offset", "length") or key in entries:
                    raise ValueError(f"external data of {name[:60]!r} has an unexpected {key[:60]!r}")
                entries[key] = value
            elif number == 14:  # data_location
                data_location = first
            elif number not in (12, 16):  # doc_string, metadata_props
                has_inline_data = True
        if data_location not in (0, EXTERNAL):
            raise ValueError(f"tensor {name[:60]!r} has the unknown data location {data_location}")
        if not entries and not data_location:
            return
        where = f"external data of {name[:60]!r}"
        if not main:
            raise ValueError(f"{where} does not belong to an initializer of the main graph")
        is_complete = data_location == EXTERNAL and "location" in entries and not has_inline_data and name
        if not is_complete or name in self._external:
            raise ValueError(f"{where} is incomplete or described twice")
        offset, length = (_parse_count(entries[key], where) if key in entries else None for key in ("offset", "length"))
        self._external[name] = ExternalTensor(name, type_, tuple(shape), entries["location"], offset or 0, length)

    def _packed(self, first: int, last: int) -> list[int]:
        """Read the numbers of a repeated field: one varint, or several packed into bytes."""
        if last < 0:
            return [first]
        numbers, at = [], first
        while at < last:
            number, at = self._varint(at)
            numbers.append(number)
        if at != last:
            raise ValueError("is truncated inside a number")
        return numbers

    def _operator_set(self, begin: int, end: int) -> tuple[str, int]:
        domain, version = "", 0
        for number, first, last in self._fields(_OPERATOR_SET, begin, end):
            if number == 1:
                domain = self._domain(first, last)
            else:
                version = first
        return domain, version

    def _entry(self, begin: int, end: int) -> tuple[str, str]:
        both = ["", ""]
        for number, first, last in self._fields(_ENTRY, begin, end):
            both[number - 1] = self._text(first, last)
        return both[0], both[1]

    def _domain(self, first: int, last: int) -> str:
        name = self._text(first, last)
        return "" if name == "ai.onnx" else name

    def _text(self, first: int, last: int) -> str:
        return self._data[first:last].decode()

    def _fields(self, message: Mapping[int, _Field], begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the number of each field with begin and end of its data; for a varint with its value and -1."""
        data, at, string_tag = self._data, begin, _STRING_TAGS.get(id(message), -1)
        seen: set[int] = set()
        while at < end:
            while at < end and data[at] == string_tag and data[at + 1] < 128:  # short strings
                at += data[at + 1] + 2
            if message is _ATTRIBUTE and (integers := _INTEGERS.match(data, at, end)):
                at = integers.end()
            if at >= end:
                break
            self._num_fields += 1
            if self._num_fields > self._max_fields:
                raise ValueError(f"has more than {self._max_fields:,} fields")
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            field = message.get(number)
            if field is None or wire not in field.wires:
                raise ValueError(f"has a field that is not allowed: number {number}, wire type {wire}")
            if not field.repeated:
                if number in seen:
                    raise ValueError(f"has field {number} twice in one message")
                seen.add(number)
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value, -1
                continue
            if wire == _BYTES:
                size, at = self._varint(at)
            else:
                size = 8 if wire == _FIXED64 else 4
            if size > end - at:
                raise ValueError("is truncated inside a field")
            yield number, at, at + size
            at += size
        if at != end:
            raise ValueError("is truncated inside a field")

    def _varint(self, at: int) -> tuple[int, int]:
        """Read an unsigned number of up to 64 bits; return it with the offset of its end."""
        value = shift = 0
        while shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128 and value < 1 << 64:
                return value, at
            shift += 7
        raise ValueError("has a number of more than 64 bits")


def _parse_count(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{where} has an offset or a length that is not a number of bytes")
    return int(text)
