"""Tensors of the Open Inference Protocol: conversion between JSON or bytes and numpy.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol; bytes as in Triton's extension
"binary tensor data": after the JSON, little-endian, each BYTES element preceded by its length as uint32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json

from cflightning_serve.http.errors import ApiError, not_finite_error
from cflightning_serve.http.json_encoding import encode_json

TensorArray = npt.NDArray[Any]
"""An array of any of the element types below."""


class ElementType(NamedTuple):
    """An element type.

    Attributes:
        datatype: name in the protocol.
        dtype: name in numpy, little-endian.
        json_types: types of its values in JSON, exactly: true is not a number.
    """

    datatype: str
    dtype: str
    json_types: tuple[type, ...]


ELEMENT_TYPES = {
    "tensor(int64)": ElementType("INT64", "<i8", (int,)),
    "tensor(string)": ElementType("BYTES", "O", (str,)),
    "tensor(float)": ElementType("FP32", "<f4", (int, float)),
    "tensor(bool)": ElementType("BOOL", "?", (bool,)),
}
"""Type name in onnxruntime -> element type."""

_BLOCK = 1024
"""Elements that are written in one call, less than a millisecond: other threads cannot run during a call."""
_MAX_NESTING = 4
"""Levels of nested lists in the data of a tensor."""
_LOWEST = float(np.finfo(np.float32).min)


def from_json(name: str, element: ElementType, data: list[object]) -> TensorArray:
    """Convert a list, nested or not, to a one-dimensional array.

    Raises:
        ApiError: an element has another type, or is out of range.
    """
    flat = list(_flatten(data))
    wrong = set(map(type, flat)).difference(element.json_types)
    if wrong:
        raise ApiError(400, "input", f"{name}: data must be {element.datatype}, got {wrong.pop().__name__}")
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which is refused below
            array = np.array(flat, dtype=element.dtype)
    except OverflowError as error:
        raise ApiError(400, "input", f"{name}: data must fit into {element.datatype}") from error
    return _check_finite(name, array)


def from_bytes(name: str, element: ElementType, data: bytes) -> TensorArray:
    """Convert the bytes of a tensor to a one-dimensional array.

    Raises:
        ApiError: the bytes are not a multiple of the element size.
    """
    if element.datatype == "BYTES":
        return np.array(list(_strings(name, data)), dtype=object)
    if len(data) % np.dtype(element.dtype).itemsize:
        raise ApiError(400, "input", f"{name}: {len(data)} bytes are not a multiple of the size of {element.datatype}")
    if element.datatype == "BOOL":  # every byte but 0 is true, while numpy's true is 1
        flags: npt.NDArray[np.bool_] = np.frombuffer(data, np.uint8) != 0
        return flags
    return _check_finite(name, np.frombuffer(data, element.dtype))


def write_json(file: BinaryIO, array: TensorArray) -> None:
    """Write all elements as one list. The -inf of a filler becomes the lowest float32, since JSON has no infinity.

    Raises:
        ApiError: an element is NaN or infinite.
    """
    flat = _check_output(array).reshape(-1)
    if array.dtype.kind == "f":
        flat = np.maximum(flat.astype(np.float64), _LOWEST)
    encode = _encode_strings if array.dtype.kind == "O" else to_json
    file.write(b"[")
    for start in range(0, len(flat), _BLOCK):
        file.write(b"," if start else b"")
        file.write(encode(flat[start : start + _BLOCK].tolist())[1:-1])
    file.write(b"]")


def to_bytes(array: TensorArray) -> bytes:
    """Return the elements as bytes in row-major order.

    Raises:
        ApiError: an element is NaN or infinite; -inf marks a filler.
    """
    if array.dtype.kind == "O":
        encoded = [str(element).encode(errors="replace") for element in array.reshape(-1)]
        return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))
    return np.ascontiguousarray(_check_output(array), array.dtype.newbyteorder("<")).tobytes()


def _encode_strings(texts: list[str]) -> bytes:
    """Encode strings; a lone surrogate, which pydantic's encoder refuses, becomes a question mark."""
    return encode_json(texts).encode(errors="replace")


def _check_finite(name: str, array: TensorArray) -> TensorArray:
    """Raise ``ApiError`` for an input with NaN or infinity, which would spread to the whole output."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ApiError(400, "input", f"{name}: data must be finite numbers")
    return array


def _check_output(array: TensorArray) -> TensorArray:
    if array.dtype.kind == "f" and not (array < np.inf).all():
        raise not_finite_error()
    return array


def _flatten(data: list[object], depth: int = 0) -> Iterator[object]:
    if depth > _MAX_NESTING:
        raise ApiError(400, "input", "data: must not be nested deeper than its shape")
    for element in data:
        if type(element) is list:
            yield from _flatten(element, depth + 1)
        else:
            yield element


def _strings(name: str, data: bytes) -> Iterator[str]:
    start = 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "little")
        end = start + 4 + length
        if start + 4 > len(data) or end > len(data):
            raise ApiError(400, "input", f"{name}: a BYTES element reaches beyond the tensor's bytes")
        try:
            yield data[start + 4 : end].decode()
        except UnicodeDecodeError as error:
            raise ApiError(400, "input", f"{name}: BYTES must hold UTF-8") from error
        start = end
