"""Ids, their indices, and their state in checkpoints."""

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning.data.ids import IdColumn
from cflightning.data.table import RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError, DataError


def test_integer_ids_have_indices():
    ids = IdColumn.encode(np.array([30, 10, 30, 20])).ids
    assert ids.kind == "int64"
    assert ids.values.tolist() == [10, 20, 30]
    assert ids.num_embeddings == 4
    assert ids.indices([10, 30, 11, -1]).tolist() == [1, 3, 0, 0]
    assert ids.indices(np.array([20], np.int32)).tolist() == [2]
    assert ids.indices([]).tolist() == []


def test_string_ids_keep_their_zeros():
    ids = IdColumn.encode(pd.Series(["b", "007", "7"], dtype="str")).ids
    assert ids.kind == "string"
    assert ids.values.tolist() == ["007", "7", "b"]
    assert ids.indices(["7", "007", "0007", ""]).tolist() == [2, 1, 0, 0]


def test_integers_and_strings_without_a_common_id_are_refused():
    with pytest.raises(DataError, match="mixed id types"):
        IdColumn.encode([1, 2]).ids.indices(["x", "01"])
    with pytest.raises(DataError, match="mixed id types"):
        IdColumn.encode(["a"]).ids.indices([1])


def test_integers_equal_their_canonical_strings():
    # Of two files with the same ids, one can have canonical integers only.
    assert IdColumn.encode(["007", "12", "x"]).ids.indices([12, 7]).tolist() == [2, 0]
    assert IdColumn.encode([7, 12]).ids.indices(["12", "007"]).tolist() == [2, 0]


@pytest.mark.parametrize("state", [torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64), torch.tensor([2, 1]), [1.5]])
def test_invalid_states_of_ids_are_refused(state):
    with pytest.raises(CheckpointError, match="vocabulary cannot be read"):
        Vocabulary.from_state({"users": state, "items": ["a"], "titles": {}})


@pytest.mark.parametrize("users", [[5, 1, 2**62], ["x", "ä", "01"]])
def test_the_state_is_plain_data(tmp_path, users):
    frame = pd.DataFrame({"user": users, "item": ["a", "b", "c"]})
    table = RatingTable.from_frame(frame, "synthetic", titles={"a": "Alpha", "z": "not in training"})
    vocabulary = Vocabulary.learn(table, slice(None))
    torch.save(vocabulary.state(), tmp_path / "v.pt")
    back = Vocabulary.from_state(torch.load(tmp_path / "v.pt", weights_only=True))
    assert back.users.values.tolist() == sorted(users) == vocabulary.users.values.tolist()
    assert back.items.indices(["c", "a"]).tolist() == [3, 1]
    assert back.titles == {"a": "Alpha"}


def test_an_incomplete_state_is_refused():
    with pytest.raises(CheckpointError, match="vocabulary cannot be read"):
        Vocabulary.from_state({"users": [1]})
