"""The hash split: rows keep their part when other rows change."""

import numpy as np
import pandas as pd
import pytest

from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.pair_hash import hash_ids, hold_out_by_hash
from cflightning.data.splits.split import TEST, TRAIN, VAL, split_table
from cflightning.data.table import RatingTable


def frame(n=5000, ids=int, seed=0):
    pairs = np.random.default_rng(seed).permutation(300 * 200)[:n]
    made = pd.DataFrame({"user": pairs // 200 - 50, "item": pairs % 200, "rating": np.float32(1)})
    return made.astype({"user": ids, "item": ids})


def table(rows):
    return RatingTable.from_frame(rows, "synthetic")


def parts(rows, **options):
    """Return the part of every pair."""
    found = split_table(table(rows), SplitOptions("hash", **{"val_fraction": 0.1, **options})).parts
    return dict(zip(zip(rows["user"].astype(str), rows["item"].astype(str), strict=True), found.tolist(), strict=True))


def test_rows_keep_their_part_when_others_are_added_removed_or_reordered():
    old, new = frame(), frame(9000)
    before = parts(old)
    for changed in (new, new.sample(frac=1, random_state=1), old[::3], frame(9000, str)):
        after = parts(changed)
        common = before.keys() & after.keys()
        assert len(common) > 1000
        assert all(before[pair] == after[pair] for pair in common)
    assert set(before.values()) == {TRAIN, VAL, TEST}


@pytest.mark.parametrize("ids", [int, str])
def test_fractions_are_met_and_seeds_are_independent(ids):
    whole = table(frame(40_000, ids))
    test, val = (hold_out_by_hash(whole, 0.2, seed) for seed in ([42], [42, 1]))
    for share in (test.mean(), val.mean(), val[test].mean(), hold_out_by_hash(whole, 0.2, [43])[test].mean()):
        assert share == pytest.approx(0.2, abs=4 * 0.4 / np.sqrt(8000))
    assert not hold_out_by_hash(whole, 0.0, [42]).any()
    by_user = pd.Series(test).groupby(whole.user.codes).mean()  # about 133 rows each
    assert by_user.std() == pytest.approx(np.sqrt(0.16 / 133), rel=0.2)


def test_hashes_never_change():
    # Old checkpoints depend on them.
    rows = table(pd.DataFrame({"user": [1, 2, -3, 4, 5, 6], "item": ["a", "b", "é", "17", "017", "9" * 30]}))
    assert [int(one) for one in hash_ids(rows.user.ids)] == NUMBERS_OF_USERS
    assert [int(one) for one in hash_ids(rows.item.ids)] == NUMBERS_OF_ITEMS
    assert hold_out_by_hash(rows, 0.5, [42, 1]).tolist() == HELD_OUT


NUMBERS_OF_USERS = [
    17824971123127853533,
    10451216379200822465,
    10905525725756348110,
    7958955049054603978,
    7134611160154358618,
    13647215125184110592,
]
NUMBERS_OF_ITEMS = [
    6153379564406917867,
    9260656408219841379,
    7524612667777581728,
    3405396810240292928,
    8453121595177857668,
    3394012004367669963,
]
HELD_OUT = [True, True, False, True, False, True]


def test_only_canonical_integers_hash_as_integers():
    texts = [
        "1",
        "-1",
        "01",
        "+1",
        " 1",
        "1.0",
        "",
        "-",
        "--1",
        "٣",
        "9223372036854775807",
        "9223372036854775808",
        "-0",
    ]
    ids = table(pd.DataFrame({"user": texts, "item": texts})).user.ids
    numbers = table(pd.DataFrame({"user": [1, -1, 2**63 - 1], "item": [1, 2, 3]})).user.ids
    found = dict(zip(ids.values.tolist(), hash_ids(ids).tolist(), strict=True))
    expected = dict(zip(map(str, numbers.values.tolist()), hash_ids(numbers).tolist(), strict=True))
    assert {text for text in texts if found[text] in expected.values()} == {"1", "-1", "9223372036854775807"}
    assert all(found[text] == number for text, number in expected.items())
