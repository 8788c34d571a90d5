"""`history`, compared with the rows that it was built from."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cflightning.data.table import RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.graphs.history import history_graph

from ..frames import make_frame


@pytest.mark.parametrize("different", [3, 9000])
@pytest.mark.parametrize("strings", [False, True])
def test_history_returns_the_rows_of_several_users(different, strings):
    rng = np.random.default_rng(1)
    frame = make_frame(strings)
    vocabulary = Vocabulary.learn(RatingTable.from_frame(frame, "synthetic"), slice(None))
    user, item = vocabulary.users.indices(frame["user"]), vocabulary.items.indices(frame["item"])
    order = np.lexsort((item, user))
    keep = order[user[order] != 7]  # a user without any
    rating = rng.integers(0, different, len(keep)).astype(np.float32) / 7
    trained = np.ones(len(keep), bool)
    model = history_graph(SeenRows(user[keep], item[keep], trained, rating), vocabulary)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["items"] == onnx.TensorProto.UINT16
    assert ("codes" in types) == (different == 3)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    stranger = "nobody" if strings else -1
    ids = [vocabulary.users.values[row - 1] if row else stranger for row in (3, 7, 0, 40, 3, 1, 7)]
    for users in (ids, ids[1:2], ids[2:3], [], ids[3:4]):
        given = np.array(users, dtype=vocabulary.users.values.dtype)
        found_item, place, found_rating, position = session.run(None, {"user": given})
        expected = [np.flatnonzero(user[keep] == row) for row in vocabulary.users.indices(given)]
        numbers = np.concatenate([*expected, np.empty(0, np.int64)]).astype(np.int64)
        assert position.tolist() == np.repeat(np.arange(len(users)), [len(part) for part in expected]).tolist()
        assert (place + 1).tolist() == item[keep][numbers].tolist()
        assert found_item.tolist() == vocabulary.items.values[place].tolist()
        assert found_rating.tolist() == rating[numbers].tolist()
