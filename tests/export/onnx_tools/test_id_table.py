"""Raw ids become rows and come back, whatever the ids: against a dictionary."""

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import TensorProto

from cflightning import EmbeddingDotTask
from cflightning.data.ids import Ids
from cflightning_export import export_bundle
from cflightning_export.onnx_tools.builder import GraphBuilder
from cflightning_export.onnx_tools.id_table import MAX_SPARSITY, MAX_WIDENED, IdTable, dense_table, smallest_dtype
from cflightning_export.onnx_tools.session import ids_of, unknown_id
from cflightning_serve import Scorer

LOW, HIGH = -(2**63), 2**63 - 1
CLOSE = {
    "from 1": range(1, 40),
    "from 0": range(30),
    "with gaps": [3, 4, 9, 11, 30, 31, 55],
    "one": [5],
    "one that is 0": [0],
    "below 0": [-9, -8, -3, 0, 4],
    "far from 0": [10**9, 10**9 + 3, 10**9 + 4],
    "far below 0": [-(10**15), 2 - 10**15],
    "near the top": [HIGH - 5, HIGH - 1],
    "near the bottom": [LOW + 1, LOW + 4],
}
APART = {
    "sparse": [1, 2, 1 + 3 * MAX_SPARSITY],
    "the largest": [HIGH - 1, HIGH],
    "the smallest": [LOW, LOW + 1],
    "both": [LOW, HIGH],
    "strings": ["a", "b", "é"],
}


INDICES = (TensorProto.INT64, ["n"])


def element(ids):
    return TensorProto.INT64 if ids.kind == "int64" else TensorProto.STRING


def graph(ids, to_index=True, max_widened=MAX_WIDENED):
    g = GraphBuilder("ids")
    table = IdTable(g, ids, "item", max_widened)
    if to_index:
        index = table.index(g.input("id", element(ids), ["n"]))
        return g.model({"index": (index, INDICES), "known": (index > 0, (TensorProto.BOOL, ["n"]))})
    return g.model({"id": (table.id(g.input("position", *INDICES)), (element(ids), ["n"]))})


def ask(model, **feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def made(values):
    values = list(values)
    return Ids(np.array(values, object if isinstance(values[0], str) else np.int64))


@pytest.mark.parametrize("max_widened", [MAX_WIDENED, 3], ids=["whole tables", "what was read"])
@pytest.mark.parametrize("name", [*CLOSE, *APART])
def test_ids_and_indices(name, max_widened):
    ids = made((CLOSE | APART)[name])
    known = {value: row for row, value in enumerate(ids.values.tolist(), start=1)}
    asked = list(known)
    if ids.kind == "int64":
        around = [value + by for value in known for by in (-2, -1, 1, 2, len(known) * MAX_SPARSITY)]
        asked += [value for value in (*around, LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH) if LOW <= value <= HIGH]
    else:
        asked += ["", "c", "A"]
    model = graph(ids, max_widened=max_widened)
    assert any(node.op_type == "LabelEncoder" for node in model.graph.node) == (name in APART)
    row, flags = ask(model, id=np.array(asked, ids.values.dtype))
    assert row.tolist() == [known.get(value, 0) for value in asked]
    assert flags.tolist() == [value in known for value in asked]
    assert [len(found) for found in ask(model, id=ids.values[:0])] == [0, 0]
    places = np.arange(len(ids))[::-1].copy()
    [back] = ask(graph(ids, to_index=False, max_widened=max_widened), position=places)
    assert back.tolist() == ids.values[::-1].tolist()


def test_a_table_begins_at_0_where_ids_begin_near_it():
    """Then nothing need be subtracted, and a user of the most usual ids costs two nodes."""
    assert [dense_table(made(ids)).first for ids in ([0, 1], [1, 2], [2, 3], [3, 4], [-1, 0])] == [0, 0, 0, 3, -1]
    assert [node.op_type for node in graph(made(range(1, 9))).graph.node] == ["Clip", "Cast", "Gather", "Greater"]


def test_no_more_places_than_the_bound():
    edge = MAX_SPARSITY * 2
    assert len(dense_table(made([100, 99 + edge])).indices) == edge + 1  # one for values that are not ids
    assert dense_table(made([100, 100 + edge])) is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 65535], np.uint16), ([0, 65536], np.int32), ([-1, 0], np.int32), ([2**31], np.int64), ([], np.uint16)],
)
def test_integers_are_stored_in_as_few_bits_as_hold_them(values, kind):
    assert smallest_dtype(np.array(values, np.int64)) is kind


def test_both_sides_of_a_graph_keep_their_tables():
    users, items = made(range(1, 9)), made([2, 3, 5])
    g = GraphBuilder("both")
    sides = {"user": IdTable(g, users, "user"), "item": IdTable(g, items, "item")}
    a, b, c = (
        sides[side].index(g.input(name, *INDICES)) for name, side in zip("abc", ("user", "item", "user"), strict=True)
    )
    model = g.model({"index_a": (a, INDICES), "index_b": (b, INDICES), "index_c": (c, INDICES)})
    assert sum(tensor.data_type == TensorProto.UINT16 for tensor in model.graph.initializer) == 2
    asked = np.array([1, 2, 3, 5, 8, 9])
    rows = ask(model, a=asked, b=asked, c=asked)
    assert [row.tolist() for row in rows] == [[1, 2, 3, 5, 8, 0], [0, 1, 2, 3, 0, 0], [1, 2, 3, 5, 8, 0]]


@pytest.mark.parametrize("values", [*CLOSE.values(), *APART.values(), [LOW, 5, HIGH]])
def test_an_id_beside_the_known_ones_is_found(values):
    ids = made(values)
    assert unknown_id(ids) not in ids.values.tolist()
    assert ids.indices(ids_of(ids, np.arange(len(ids) + 1))).tolist() == list(range(len(ids) + 1))


@pytest.mark.slow
def test_ids_at_both_ends_of_64_bits_make_a_bundle(tmp_path, make_run):
    rng = np.random.default_rng(0)
    ends = np.array([LOW, LOW + 1, -3, 0, 10**15, HIGH - 1, HIGH])
    frame = pd.DataFrame({"user": ends.repeat(7), "item": np.tile(ends, 7), "rating": rng.integers(1, 6, 49)})
    make_run(tmp_path / "run", frame, EmbeddingDotTask(dim=2))
    scorer = Scorer.load(export_bundle(tmp_path / "run", tmp_path / "bundle"))
    assert scorer.users().tolist() == ends.tolist()
    assert scorer.recommend(HIGH, 7, exclude_seen=False).items.tolist() != []
    assert scorer.knows_item([LOW, HIGH, 7]).tolist() == [True, True, False]
