"""Types of ids: which are accepted, and the messages for the others."""

import enum

import numpy as np
import pandas as pd
import pytest

from cflightning_serve import InputError
from cflightning_serve.bundle.ids import parse_id_texts


class Color(enum.IntEnum):
    RED = 30


INTEGERS = [
    *(np.dtype(code).type for code in "bhilqBHIL"),
    int,
    Color,
]


@pytest.mark.parametrize("type_", INTEGERS, ids=lambda type_: type_.__name__)
def test_integers_of_any_width_are_accepted(scorer, type_):
    expected = scorer.score(30, 3)
    assert scorer.score(type_(30), type_(3) if type_ is not Color else 3) == expected
    assert scorer.score([type_(30)], 3)[0] == expected
    if issubclass(type_, np.integer):
        assert scorer.score(np.array(30, type_), np.array(3, type_)) == expected
        assert scorer.score(np.array([30, 30], type_)[::-1], 3).tolist() == [expected] * 2


@pytest.mark.parametrize(
    "convert",
    [
        lambda ids: range(ids[0], ids[-1] + 1, 10),
        tuple,
        pd.Series,
        pd.Index,
        lambda ids: pd.Series(ids, dtype="Int64"),
        lambda ids: pd.Series(ids, dtype="category"),
        lambda ids: pd.Series(ids, dtype=object),
        lambda ids: np.array(ids, dtype=">i4"),
        lambda ids: np.array([ids, ids]).T[:, 0],
        lambda ids: np.array(ids, dtype=object),
    ],
)
def test_integer_arrays_of_any_class_are_accepted(scorer, convert):
    ids = [10, 20, 30, 40]
    np.testing.assert_array_equal(scorer.score(convert(ids), 3), scorer.score(np.array(ids), 3))


@pytest.mark.parametrize(
    "convert",
    [
        tuple,
        np.array,
        pd.Series,
        lambda ids: np.array(ids, dtype=object),
        lambda ids: np.array(ids, dtype=np.dtypes.StringDType()),
        lambda ids: pd.Series(ids, dtype=object),
        lambda ids: pd.Series(ids, dtype="category"),
    ],
)
def test_string_arrays_of_any_class_are_accepted(string_scorer, convert):
    ids = ["000", "zoë", "nobody"]
    assert string_scorer.knows_user(convert(ids)).tolist() == [True, True, False]


def test_a_single_string_of_numpy_is_accepted(string_scorer):
    assert string_scorer.knows_user(np.str_("zoë")) is True
    assert string_scorer.knows_user(np.array("zoë")) is True
    assert string_scorer.knows_user("zoe\u0308") is False  # ids are not normalised


def test_strings_keep_their_leading_zeros(string_scorer):
    assert string_scorer.knows_user(["001", "1"]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        (True, "must be integers, got bool True"),
        (np.True_, "got bool True"),
        ([1, True], r"got bool True at position 1 \(1 of 2 are of this type\)"),
        (np.array([True]), "got bool True"),
        (1.0, "got float 1.0; drop missing ids"),
        (float("nan"), "got float nan"),
        ([1, None], "got NoneType None at position 1"),
        ([10, 2.5, 3.5], r"got float 2.5 at position 1 \(2 of 3"),
        (np.array([10, np.nan]), r"got float 10.0 at position 0 \(2 of 2"),
        (pd.Series([10, None]), "got float 10.0"),
        (pd.Series([10, None], dtype="Int64"), "got (float 10.0 at position 0|NAType <NA> at position 1)"),
        ("10", r"got str '10'; ids are integers in this bundle: convert with int\(\)"),
        (np.array(["10", "20"]), "got str '10' at position 0"),
        (b"10", "got bytes b'10'"),
        (None, "got NoneType None"),
        ({10, 20}, "got set .* pass one id, or a list or an array"),
        (iter([10]), "got list_iterator"),
        (2**63, "must fit into 64 bits, got 9223372036854775808"),
        (-(2**63) - 1, "must fit into 64 bits"),
        ([1, 10**30], f"must fit into 64 bits, got {10**30}"),
        (np.array([1, 2**63], dtype=np.uint64), "must fit into 64 bits, got 9223372036854775808"),
        (np.uint64(2**64 - 1), "must fit into 64 bits"),
        (np.timedelta64(1, "D"), "must be integers, got"),
        ([np.timedelta64(1)], "got timedelta64"),
        (np.zeros((2, 2), int), r"in one dimension, got shape \[2, 2\]"),
        ([[1, 2], [3, 4]], r"got list \[1, 2\] at position 0"),
        ("x" * 200, r"got str 'x+\.\.\.;"),
    ],
)
def test_other_types_than_integers_are_refused(scorer, ids, match):
    for call in (scorer.recommend, scorer.knows_user, lambda ids: scorer.score(ids, 3)):
        with pytest.raises(InputError, match=f"^user ids: .*{match}"):
            call(ids)
    for call in (scorer.similar_items, scorer.knows_item, scorer.titles, lambda ids: scorer.score(10, ids)):
        with pytest.raises(InputError, match=f"^item ids: .*{match}"):
            call(ids)


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        (42, "must be strings, got int 42; ids are strings in this bundle: pass '42'"),
        (np.int32(42), "pass '42'"),
        (["000", 1], "got int 1 at position 1 .* pass '1'"),
        (np.array([1, 2]), "got int 1 at position 0"),
        (True, "got bool True; pass one id"),
        (1.5, "got float 1.5"),
        (b"000", "got bytes"),
        (pd.Series(["000", None]), "got (float nan|NoneType None) at position 1"),
        (["000", float("nan")], "got float nan at position 1"),
        (np.array([["000"]]), "one dimension"),
        ("\ud800", "must be valid Unicode"),
        (np.array(["000", "\udfff"]), "must be valid Unicode"),
    ],
)
def test_other_types_than_strings_are_refused(string_scorer, ids, match):
    for call in (string_scorer.recommend, string_scorer.knows_user, lambda ids: string_scorer.score(ids, "i0")):
        with pytest.raises(InputError, match=match):
            call(ids)


def test_input_errors_are_value_errors(scorer):
    with pytest.raises(ValueError, match="user ids"):
        scorer.recommend("x")


def test_the_smallest_and_the_largest_integer_are_accepted(scorer):
    assert scorer.knows_user([-(2**63), 2**63 - 1, 0]).tolist() == [False] * 3
    assert scorer.knows_user(np.array([10, 2**63 - 1], dtype=np.uint64)).tolist() == [True, False]


def test_arguments_are_not_changed(scorer):
    users, items = np.array([10, 20]), np.array([0, 3])
    users.flags.writeable = items.flags.writeable = False
    scorer.score(users, items)
    scorer.recommend(users, exclude=[items, items])
    scorer.similar_items(items)


def test_ids_given_as_text_are_parsed():
    assert parse_id_texts(["1", "-3", "+7"], "int64", "item") == [1, -3, 7]
    assert parse_id_texts(["1", "007"], "string", "item") == ["1", "007"]
    with pytest.raises(InputError, match="item: ids are integers in this bundle, got '0x1'"):
        parse_id_texts(["0x1"], "int64", "item")
