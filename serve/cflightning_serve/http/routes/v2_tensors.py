"""Tensors of the Open Inference Protocol, as JSON or as bytes, to numpy and back.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol; bytes as in Triton's extension
"binary tensor data": after the JSON, little endian, a BYTES element led by its length as uint32.
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


class Kind(NamedTuple):
    """An element type."""

    datatype: str
    """As the protocol calls it."""
    dtype: str
    """As numpy calls it, little endian."""
    accepts: tuple[type, ...]
    """What JSON values may be; exactly, so that true is no number."""


KINDS = {
    "tensor(int64)": Kind("INT64", "<i8", (int,)),
    "tensor(string)": Kind("BYTES", "O", (str,)),
    "tensor(float)": Kind("FP32", "<f4", (int, float)),
    "tensor(bool)": Kind("BOOL", "?", (bool,)),
}
"""onnxruntime's name of a type -> element type."""

_PIECE = 1024
"""Elements, less than a millisecond."""
_LOWEST = float(np.finfo(np.float32).min)


def from_json(name: str, kind: Kind, data: list[Any]) -> npt.NDArray[Any]:
    """One dimension of elements from a list that may be nested.

    Raises:
        ApiError: an element has another type, or does not fit.
    """
    flat = list(_flat(data))
    wrong = set(map(type, flat)).difference(kind.accepts)
    if wrong:
        raise ApiError(400, "input", f"{name}: data must be {kind.datatype}, got {wrong.pop().__name__}")
    try:
        with np.errstate(over="ignore"):  # of a number beyond float32: it becomes infinite, and is refused
            array = np.array(flat, dtype=kind.dtype)
    except OverflowError as error:
        raise ApiError(400, "input", f"{name}: data must fit into {kind.datatype}") from error
    return finite(name, array)


def from_bytes(name: str, kind: Kind, data: bytes) -> npt.NDArray[Any]:
    """One dimension of elements from the bytes behind the JSON.

    Raises:
        ApiError: they do not hold whole elements.
    """
    if kind.datatype == "BYTES":
        return np.array(list(_strings(name, data)), dtype=object)
    if len(data) % np.dtype(kind.dtype).itemsize:
        raise ApiError(400, "input", f"{name}: {len(data)} bytes are no whole number of {kind.datatype}")
    if kind.datatype == "BOOL":  # any byte but 0 is true, while numpy's bools hold 1
        flags: npt.NDArray[np.bool_] = np.frombuffer(data, np.uint8) != 0
        return flags
    return finite(name, np.frombuffer(data, kind.dtype))


def finite(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Raise ``ApiError`` where a number is NaN or infinite: it would distribution to every answer."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ApiError(400, "input", f"{name}: data must be finite numbers")
    return array


def write_json(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write one list of all elements. JSON has no infinity: the -inf of a filler becomes the lowest float32.

    Raises:
        ApiError: an element is NaN or infinite.
    """
    flat = _answered(array).reshape(-1)
    if array.dtype.kind == "f":
        flat = np.maximum(flat.astype(np.float64), _LOWEST)
    write = _write_texts if array.dtype.kind == "O" else to_json
    file.write(b"[")
    # Piece by piece: no other thread of Python runs while one of them is written.
    for at in range(0, len(flat), _PIECE):
        file.write(b"," if at else b"")
        file.write(write(flat[at : at + _PIECE].tolist())[1:-1])
    file.write(b"]")


def _write_texts(texts: list[str]) -> bytes:
    """Write strings; half a character, which pydantic's writer refuses, becomes a question mark."""
    return encode_json(texts).encode(errors="replace")


def to_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return elements as bytes, in the order of rows.

    Raises:
        ApiError: an element is NaN or infinite; -inf marks a filler.
    """
    if array.dtype.kind == "O":
        encoded = [str(one).encode(errors="replace") for one in array.reshape(-1)]
        return b"".join(part for one in encoded for part in (struct.pack("<I", len(one)), one))
    return np.ascontiguousarray(_answered(array), array.dtype.newbyteorder("<")).tobytes()


def _answered(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind == "f" and not (array < np.inf).all():
        raise not_finite_error()
    return array


def _flat(data: list[Any], depth: int = 0) -> Iterator[Any]:
    if depth > 4:
        raise ApiError(400, "input", "data: must not be nested deeper than its shape")
    for one in data:
        if type(one) is list:
            yield from _flat(one, depth + 1)
        else:
            yield one


def _strings(name: str, data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        end = at + 4 + length
        if at + 4 > len(data) or end > len(data):
            raise ApiError(400, "input", f"{name}: a BYTES element reaches beyond the tensor's bytes")
        try:
            yield data[at + 4 : end].decode()
        except UnicodeDecodeError as error:
            raise ApiError(400, "input", f"{name}: BYTES must hold UTF-8") from error
        at = end
