"""Conversion of Arrow's types to the plain ones of a ratings table, and to numpy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class UnreadableType(ValueError):
    """A column type that holds neither numbers, text nor times; the message is the name of the type."""


def simplify(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to plain numbers, booleans, times or text without changing its values.

    Dictionary and run-end encodings are decoded, views and bytes become text, and extension types become their storage
    type where both mean the same.

    Args:
        column: Column of any type.

    Returns:
        A chunked array of integers, floats, decimals, booleans, strings, dates, timestamps or nulls.

    Raises:
        UnreadableType: Lists, structs, maps, unions, durations, times of day or unknown extension types.
        pyarrow.ArrowInvalid: Bytes that are not UTF-8.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    simple = [_simplify(chunk) for chunk in chunks]
    kind = simple[0].type if simple else _simplify(pa.array([], column.type)).type
    return pa.chunked_array(simple, kind)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def to_numpy(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return an array of numbers or booleans without nulls, without a copy where possible.

    pyarrow's own `to_numpy` would import pandas.
    """
    if isinstance(array, pa.ChunkedArray):
        parts = [to_numpy(chunk) for chunk in array.chunks]
        dtype = np.dtype(array.type.to_pandas_dtype())
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])
    if pa.types.is_boolean(array.type):
        return to_numpy(array.cast(pa.uint8())).astype(bool)
    buffer, dtype = array.buffers()[1], np.dtype(array.type.to_pandas_dtype())
    if buffer is None:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array)]


def encode(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Dictionary-encode a column.

    Chunks are not concatenated first, so the text may exceed the 2 GiB that one array of strings can hold.

    Args:
        column: Column from `simplify`; null counts as a value.

    Returns:
        Distinct values [distinct], and their indices, int32 [rows].
    """
    if is_text(column.type) and column.nbytes >= 2**31:
        column = pa.chunked_array([chunk.cast(pa.large_string()) for chunk in column.chunks], pa.large_string())
    coded = pc.dictionary_encode(column, null_encoding="encode")
    if not coded.num_chunks:
        return pa.array([], column.type), np.empty(0, np.int32)
    distinct = coded.chunk(0).dictionary
    if not all(chunk.dictionary.equals(distinct) for chunk in coded.chunks):
        coded = coded.unify_dictionaries()  # slow, and rarely needed: pyarrow's chunks share a dictionary
    parts = [to_numpy(chunk.indices) for chunk in coded.chunks]
    return coded.chunk(0).dictionary, parts[0] if len(parts) == 1 else np.concatenate(parts)


def empty_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Return which rows are null, empty text or NaN, bool [rows]."""
    empty = np.array(to_numpy(column.is_null(nan_is_null=not is_text(column.type))), dtype=bool)
    if not is_text(column.type):
        return empty
    empty |= to_numpy(pc.binary_length(column)) == 0  # numpy compares: a pyarrow scalar would import pandas
    return empty


def _simplify(array: pa.Array) -> pa.Array:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        if isinstance(kind, pa.UuidType):
            return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
        if getattr(kind, "extension_name", "") in ("arrow.json", "arrow.bool8"):
            return _simplify(array.storage)
        raise UnreadableType(str(kind))
    if pa.types.is_dictionary(kind):
        values = _simplify(array.dictionary)
        if is_text(values.type):
            values = values.cast(pa.large_string())  # decoded, it may exceed 2 GiB
        return pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode()
    if pa.types.is_run_end_encoded(kind):
        runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, _simplify(array.values))
        return pc.run_end_decode(runs).slice(array.offset, len(array))
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return array.cast(pa.large_string())  # checks that it is UTF-8
    if pa.types.is_fixed_size_binary(kind):
        return array.cast(pa.large_binary()).cast(pa.large_string())
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    plain = (
        is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_null(kind)
    )
    if not plain:
        raise UnreadableType(str(kind))
    return array
