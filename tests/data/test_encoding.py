"""Encoding of the parts of a split, compared with sets made row by row."""

import logging
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning import RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import FOLD_IN, TEST, TRAIN, VAL
from cflightning.errors import DataError


def data(method="random", users=40, items=60, n=600, feedback="ratings", **split):
    rng = np.random.default_rng(1)
    pairs = rng.permutation(users * items)[:n]
    names = [f"u{pair // items:02}" for pair in pairs]
    frame = pd.DataFrame(
        {"user": names, "item": pairs % items * 7, "rating": 1.0 + pairs % 5, "timestamp": np.arange(n)}
    )
    options = SplitOptions(method, **{"test_fraction": 0.2, "val_fraction": 0.2, **split})
    return RatingsDataModule.from_frame(frame, feedback=feedback, split=options)


def slow(module, *parts):
    """Return the indices of the known items of every known user, by their ids."""
    users = {key: row for row, key in enumerate(module.vocabulary.users.values.tolist(), start=1)}
    items = {key: row for row, key in enumerate(module.vocabulary.items.values.tolist(), start=1)}
    found = [set() for _ in range(module.num_users)]
    for (_, row), part in zip(module.table.frame.iterrows(), module.split.parts, strict=True):
        if part in parts and row["user"] in users and row["item"] in items:
            found[users[row["user"]]].add(items[row["item"]])
    return [sorted(items) for items in found]


def as_lists(lists):
    offsets = lists.offsets.tolist()
    return [lists.indices[a:b].tolist() for a, b in pairwise(offsets)]


@pytest.mark.parametrize("parts", [(TRAIN,), (VAL,), (TEST,), (TRAIN, VAL), (TRAIN, VAL, TEST)])
@pytest.mark.parametrize("options", [{}, {"feedback": "implicit"}, {"method": "time", "test_fraction": 0.9}])
def test_interactions(parts, options):
    module = data(**options)
    found = module.interactions(*parts)
    assert (found.num_rows, found.num_columns) == (module.num_users, module.num_items)
    assert found.indices.dtype == torch.int32
    assert as_lists(found) == slow(module, *parts)
    assert as_lists(found)[0] == []


def test_unknown_ids_are_left_out_and_counted(caplog):
    caplog.set_level(logging.DEBUG, logger="cflightning")
    module = data("time", test_fraction=0.9)
    before = module.split.sizes[TEST]
    found = module.interactions(TEST)
    left = before - len(found.indices)
    assert 0 < left < before
    assert f"{left} of {before} rows have an id not seen in training: left out" in caplog.text


def test_a_borrowed_vocabulary_determines_the_indices():
    module, other = data(), data(test_fraction=0.6)
    module.vocabulary = other.vocabulary
    assert as_lists(module.interactions(TEST)) == slow(module, TEST)


def test_an_empty_part_has_no_interactions():
    module = data(val_fraction=0)
    found = module.interactions(VAL)
    assert found.num_rows == module.num_users
    assert not len(found.indices)


def test_interactions_suit_the_ranking_metrics():
    from cflightning.metrics.ranking import RankingMetrics
    from cflightning.metrics.top_k import rank_all

    module = data("per_user", feedback="implicit")
    truth, seen = module.interactions(TEST), module.interactions(TRAIN, VAL)
    items = torch.eye(module.num_items)
    best = torch.zeros(module.num_users, module.num_items)
    for user, relevant in enumerate(as_lists(truth)):
        best[user, relevant] = 1
    top = torch.cat([ranked.item for ranked in rank_all(best, items, seen=seen, k=20)])
    figures = RankingMetrics((20,))
    figures.update(top, truth)
    assert figures.compute()["ndcg@20"] == pytest.approx(1)


@pytest.mark.parametrize("part", [VAL, TEST])
def test_held_out_users(part, caplog):
    module = data("users", feedback="implicit", n=300, test_users=8, val_users=5)
    found = module.held_out_users(part)
    frame, parts = module.table.frame, module.split.parts
    assert found.users.tolist() == sorted(set(frame["user"][parts == part]))
    assert len(found.users) == (8 if part == TEST else 5)
    assert not set(found.users) & set(module.vocabulary.users.values)
    items = {key: row for row, key in enumerate(module.vocabulary.items.values.tolist(), start=1)}
    for lists, wanted in ((found.fold_in_items, FOLD_IN), (found.relevant, part)):
        assert lists.num_columns == module.num_items
        for user, got in zip(found.users, as_lists(lists), strict=True):
            rows = (parts == wanted) & (frame["user"] == user).to_numpy()
            assert got == sorted(items[item] for item in frame["item"][rows] if item in items)
    with pytest.raises(DataError, match=r"got none of .*returned by held_out_users"):
        module.interactions(part)
    assert len(module.interactions(TRAIN).indices) == module.split.sizes[TRAIN]


def test_other_splits_have_no_held_out_users():
    with pytest.raises(DataError, match="--data.split.method: must be users to hold out users, got random"):
        data().held_out_users(TEST)


def test_held_out_users_cause_no_warning(caplog):
    module = data("users", test_users=8, val_users=5)
    assert len(list(module.test_dataloader())) == 1
    assert [record.levelname for record in caplog.records if "unknown embedding" in record.message] == ["INFO"]
    assert len(list(module.val_dataloader())) == 1
    assert len(list(module.train_dataloader())) > 0
