"""Ids to rows and back."""

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning.data.vocabulary import Ids, Vocabulary
from cflightning.errors import CheckpointError, DataError


def test_integer_ids():
    ids = Ids.learn(np.array([30, 10, 30, 20]))
    assert ids.kind == "int64"
    assert ids.values.tolist() == [10, 20, 30]
    assert ids.num_rows == 4
    assert ids.rows([10, 30, 11, -1]).tolist() == [1, 3, 0, 0]
    assert ids.rows(np.array([20], np.int32)).tolist() == [2]
    assert ids.rows([]).tolist() == []


def test_string_ids_keep_their_zeros():
    ids = Ids.learn(pd.Series(["b", "007", "7"], dtype="str"))
    assert ids.kind == "string"
    assert ids.values.tolist() == ["007", "7", "b"]
    assert ids.rows(["7", "007", "0007", ""]).tolist() == [2, 1, 0, 0]


def test_types_do_not_mix():
    with pytest.raises(DataError, match="mixed id types"):
        Ids.learn([1, 2]).rows(["1"])
    with pytest.raises(DataError, match="mixed id types"):
        Ids.learn(["a"]).rows([1])


@pytest.mark.parametrize("users", [[5, 1, 2**62], ["x", "ä", "01"]])
def test_state_survives_a_safe_load(tmp_path, users):
    frame = pd.DataFrame({"user": users, "item": ["a", "b", "c"]})
    vocabulary = Vocabulary.learn(frame, {"a": "Alpha", "z": "not in training"})
    torch.save(vocabulary.state(), tmp_path / "v.pt")
    back = Vocabulary.from_state(torch.load(tmp_path / "v.pt", weights_only=True))
    assert back.users.values.tolist() == sorted(users) == vocabulary.users.values.tolist()
    assert back.items.rows(["c", "a"]).tolist() == [3, 1]
    assert back.titles == {"a": "Alpha"}


def test_broken_state():
    with pytest.raises(CheckpointError, match="vocabulary cannot be read"):
        Vocabulary.from_state({"users": [1]})
