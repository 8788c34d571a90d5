"""Every column type of Arrow is read with its values, or rejected in one line."""

import datetime
import decimal
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources.arrow_types import encode, simplify, to_numpy
from cflightning.data.sources.columns import to_table
from cflightning.errors import DataError

NUMBERS = [3, 1, 2, 3]
TEXTS = ["x", "é", "x", "z"]
DAYS = [datetime.date(2020, 1, day) for day in (1, 2, 1, 3)]
SECONDS = [1577836800 + 86400 * day for day in (0, 1, 0, 2)]


def numbers(kind):
    if pa.types.is_decimal(kind):
        return pa.array([decimal.Decimal(value) for value in NUMBERS], kind)
    return (
        pa.array(np.array(NUMBERS), kind) if not pa.types.is_float16(kind) else pa.array(np.array(NUMBERS, np.float16))
    )


def texts(kind):
    if pa.types.is_fixed_size_binary(kind):
        return pa.array([text.encode().ljust(2, b" ") for text in TEXTS], kind)
    as_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return pa.array([text.encode() if as_bytes else text for text in TEXTS], kind)


def times(kind):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    if pa.types.is_timestamp(kind):
        return pa.array([second * per_second[kind.unit] for second in SECONDS], pa.int64()).cast(kind)
    return pa.array(DAYS, kind)


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMALS = [pa.decimal32(7, 2), pa.decimal64(9, 2), pa.decimal128(20, 2), pa.decimal256(40, 3)]
STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
TIMES = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "Europe/Berlin")]
DATES = [pa.date32(), pa.date64()]
OTHERS = {
    "list": pa.array([[1], [2], [1], [3]]),
    "large_list": pa.array([[1], [2], [1], [3]], pa.large_list(pa.int64())),
    "list_view": pa.array([[1], [2], [1], [3]], pa.list_view(pa.int64())),
    "fixed_size_list": pa.array([[1], [2], [1], [3]], pa.list_(pa.int64(), 1)),
    "struct": pa.array([{"a": 1}, {"a": 2}, {"a": 1}, {"a": 3}]),
    "map": pa.array([[("a", 1)]] * 4, pa.map_(pa.string(), pa.int64())),
    "union": pa.UnionArray.from_sparse(pa.array([0] * 4, pa.int8()), [pa.array(NUMBERS)]),
    "duration": pa.array([1, 2, 1, 3], pa.duration("s")),
    "time32": pa.array([1, 2, 1, 3], pa.time32("s")),
    "time64": pa.array([1, 2, 1, 3], pa.time64("us")),
    "interval": pa.array([(1, 2, 3)] * 4, pa.month_day_nano_interval()),
    "tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), [1]),
                                             pa.array([[1], [2], [1], [3]], pa.list_(pa.int64(), 1))),
}  # fmt: skip


def dictionary(array):
    return pa.DictionaryArray.from_arrays(pa.array(range(len(array)), pa.int8()), array)


def runs(array):
    return pa.RunEndEncodedArray.from_arrays(pa.array(range(1, len(array) + 1), pa.int32()), array)


def plain(array):
    return array


def read(**columns):
    given = {"user": pa.array([1, 2, 3, 4]), "item": pa.array([1, 2, 3, 4]), "rating": pa.array([1.0, 2, 3, 4])}
    chunks = {role: pa.chunked_array([column[:1], column[1:]]) for role, column in (given | columns).items()}
    return to_table(chunks, lambda row: f"a.parquet: row {row + 1}", "a.parquet")


@pytest.mark.parametrize("wrapped", [plain, dictionary, runs])
@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS, *DECIMALS], ids=str)
def test_numbers_are_ids_and_ratings(kind, wrapped):
    column = wrapped(numbers(kind))
    table = read(user=column, rating=column, timestamp=column)
    assert table.user.values.tolist() == table.rating.tolist() == table.timestamp.tolist() == NUMBERS
    assert (table.user.ids.kind, table.rating.dtype) == ("int64", np.float32)


@pytest.mark.parametrize("wrapped", [plain, dictionary, runs])
@pytest.mark.parametrize("kind", STRINGS, ids=str)
def test_texts_are_ids(kind, wrapped):
    assert read(user=wrapped(texts(kind))).user.values.tolist() == TEXTS


def test_bytes_of_a_fixed_length_are_ids():
    assert read(user=texts(pa.binary(2))).user.values.tolist() == ["x ", "é", "x ", "z "]


@pytest.mark.parametrize("wrapped", [plain, dictionary, runs])
@pytest.mark.parametrize("kind", [*TIMES, *DATES], ids=str)
def test_times_are_seconds(kind, wrapped):
    assert read(timestamp=wrapped(times(kind))).timestamp.tolist() == SECONDS
    with pytest.raises(DataError, match="ids must be integers or strings"):
        read(user=times(kind))
    with pytest.raises(DataError, match="ratings must be numbers"):
        read(rating=times(kind))


@pytest.mark.parametrize("wrapped", [plain, dictionary, runs])
def test_booleans_are_ratings_of_0_and_1(wrapped):
    column = wrapped(pa.array([True, False, True, True]))
    assert read(rating=column).rating.tolist() == [1, 0, 1, 1]
    for role in ("user", "weight", "timestamp"):
        with pytest.raises(DataError, match=rf"row 1.*column '{role}'"):
            read(**{role: column})


@pytest.mark.parametrize("role", ["user", "item", "rating", "weight", "timestamp"])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_types_are_refused_in_one_line(kind, role):
    with pytest.raises(
        DataError, match=rf"a.parquet: row 1, column '{role}': must hold .*convert the column"
    ) as caught:
        read(**{role: OTHERS[kind]})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("role", ["user", "rating", "weight", "timestamp"])
def test_a_column_of_nothing_is_a_column_of_missing_values(role):
    with pytest.raises(DataError, match=r"got nothing \(and 3 more such rows\)"):
        read(**{role: pa.nulls(4)})


@pytest.mark.parametrize("role", ["user", "rating", "weight", "timestamp"])
@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.string_view(), pa.int64()], ids=str)
def test_missing_values_are_named_by_their_row(kind, role):
    given = ["1", "2", None, "3"] if kind in STRINGS else [1, 2, None, 3]
    with pytest.raises(DataError, match=r"row 3.*got nothing"):
        read(**{role: pa.array(given, kind)})


def test_not_a_number_is_missing():
    for role in ("user", "rating", "weight", "timestamp"):
        with pytest.raises(DataError, match=r"row 2.*got nothing"):
            read(**{role: pa.array([1.0, float("nan"), 2, 3])})


def test_extension_types_that_mean_the_same_as_their_storage():
    keys = [uuid.UUID(int=number) for number in (1, 2, 1, 3)]
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes for key in keys], pa.binary(16)))
    assert read(user=column).user.values.tolist() == [str(key) for key in keys]
    truths = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, 1, 1], pa.int8()))
    assert read(rating=truths).rating.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.large_string()], ids=str)
@pytest.mark.parametrize("role", ["user", "rating", "timestamp"])
def test_bytes_that_are_no_utf8_are_named_by_their_row(kind, role):
    column = pa.array([b"1", b"2", b"\xff", b"3"], pa.large_binary() if "large" in str(kind) else pa.binary())
    with pytest.raises(DataError, match=rf"a.parquet: row 3, column '{role}': must be UTF-8"):
        read(**{role: column.view(kind)})


def test_unsigned_ids_that_need_the_64th_bit_are_refused():
    with pytest.raises(DataError, match=r"row 2.*must fit in 64 bits.*got 9223372036854775808"):
        read(user=pa.array([1, 2**63, 2, 3], pa.uint64()))


def test_ids_at_both_ends_of_int64():
    ends = [-(2**63), 2**63 - 1, 0, 5]
    for column in (pa.array(ends), pa.array([str(end) for end in ends])):
        assert read(user=column).user.values.tolist() == ends


@pytest.mark.parametrize("values", [[1.0, 2, 1, 3], ["1.0", "2.0", "1", "3."], ["1", "2.00", "1.0", "3"]])
def test_ids_written_as_whole_decimals_are_integers(values):
    table = read(user=pa.array(values))
    assert table.user.values.tolist() == [1, 2, 1, 3]
    assert table.user.ids.values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "values", [[1.5, 2, 1, 3], [2.0**53 + 2, 2, 1, 3], [float("inf"), 2, 1, 3], ["1.5", "2", "1", "3"]]
)
def test_other_decimals_are_no_ids(values):
    with pytest.raises(DataError, match=r"row 1.*ids must be integers or strings"):
        read(user=pa.array(values))


def test_text_of_many_chunks_is_never_put_together():
    chunk = pa.array(["a" * 1000, "b" * 1000])
    column = simplify(pa.chunked_array([chunk, chunk, chunk.slice(1)]))
    distinct, codes = encode(column)
    assert distinct.to_pylist() == ["a" * 1000, "b" * 1000]
    assert codes.tolist() == [0, 1, 0, 1, 1]
    assert encode(simplify(pa.chunked_array([], pa.string())))[1].tolist() == []


@pytest.mark.slow
def test_text_of_more_than_two_gigabytes():
    chunk = pa.array([letter * 2**20 for letter in "abcdefgh"])
    column = pa.chunked_array([chunk] * 260)  # the same 8 MiB, over and over
    assert column.nbytes >= 2**31
    distinct, codes = encode(simplify(column))
    assert len(distinct) == 8
    assert codes.tolist() == list(range(8)) * 260


def test_numbers_of_several_chunks_as_they_lie_in_memory():
    column = pa.chunked_array([pa.array([1, 2, 3])[1:], pa.array([4, 5])[:1]])
    assert to_numpy(column).tolist() == [2, 3, 4]
    assert to_numpy(pa.chunked_array([], pa.float32())).dtype == np.float32
    assert to_numpy(pa.chunked_array([[True, False], [True]])).tolist() == [True, False, True]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_titles_and_categories_of_any_text(kind):
    given = [b"A|B", b"C", b"A|B", None] if kind == pa.binary() else ["A|B", "C", "A|B", None]
    table = read(title=pa.array(given, kind), categories=pa.array(given, kind))
    assert table.titles == {1: "A|B", 2: "C", 3: "A|B"}
    assert table.categories == {1: ("A", "B"), 2: ("C",), 3: ("A", "B")}


def test_titles_that_are_numbers_and_categories_that_are_lists():
    for kind in (pa.list_(pa.string()), pa.large_list(pa.string())):
        table = read(title=pa.array(NUMBERS), categories=pa.array([["A", "B"], [], None, ["C"]], kind))
        assert table.titles == {1: "3", 2: "1", 3: "2", 4: "3"}
        assert table.categories == {1: ("A", "B"), 4: ("C",)}
    for role in ("title", "categories"):
        with pytest.raises(DataError, match=f"column '{role}': must hold text, got values of type struct"):
            read(**{role: OTHERS["struct"]})


def test_the_types_that_parquet_keeps(tmp_path):
    columns = {"user": texts(pa.string_view()).cast(pa.large_string()), "item": dictionary(texts(pa.string())),
               "rating": numbers(pa.float16()), "timestamp": times(pa.timestamp("ns", "UTC"))}  # fmt: skip
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    frame = RatingsDataModule(str(tmp_path / "a.parquet"), duplicates="last").table.frame
    assert frame.values.tolist() == [
        ["é", "é", 1.0, SECONDS[1]],
        ["x", "x", 2.0, SECONDS[2]],
        ["z", "z", 3.0, SECONDS[3]],
    ]
