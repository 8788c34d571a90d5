"""Sessions: signatures, failing graphs, shared tables and finite results."""

import gc
import json

import numpy as np
import onnx
import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.bundle.sessions import has_nan, may_be_infinite


def refused(folder, match, **options):
    with pytest.raises(BundleError, match=match):
        Scorer.load(folder, **options)


def edit(bundles, folder, change):
    """Change the manifest and update its digest."""
    raw = json.loads((folder / "manifest.json").read_text("utf-8"))
    change(raw)
    bundles.seal(folder, raw)


def test_an_invalid_graph_is_refused_when_the_bundle_is_loaded(bundles, copy):
    (copy / "score.onnx").write_bytes(b"no graph")
    (copy / "recommend.onnx").write_bytes(b"")
    bundles.reseal(copy)
    refused(copy, "score.onnx: must be an ONNX model within the limits of BUNDLE.md, .*; copy or export the bundle")


def test_an_invalid_graph_is_refused_at_its_first_use(bundles, copy):
    (copy / "similar.onnx").write_bytes(b"no graph")
    bundles.reseal(copy)
    scorer = Scorer.load(copy)
    assert scorer.recommend(10)
    for _ in range(2):
        with pytest.raises(BundleError, match=r"similar.onnx: must be an ONNX model"):
            scorer.similar_items(0)


def test_a_graph_with_other_inputs_is_refused(bundles, copy):
    edit(bundles, copy, lambda raw: raw["graphs"].update(score="similar.onnx"))
    refused(copy, r"similar.onnx: inputs must be {'user': 'tensor\(int64\)', 'item': .*}, are {.*'k'.*}")


def test_a_graph_with_other_id_types_is_refused(bundles, copy):
    edit(bundles, copy, lambda raw: raw["ids"].update(user="string"))
    refused(copy, r"score.onnx: inputs must be {'user': 'tensor\(string\)'.* are {'user': 'tensor\(int64\)'")


def test_a_graph_with_other_outputs_is_refused(bundles, copy):
    edit(bundles, copy, lambda raw: raw["graphs"].update(recommend="other.onnx"))
    data = (copy / "recommend.onnx").read_bytes()
    (copy / "other.onnx").write_bytes(data.replace(b"known", b"named"))
    bundles.reseal(copy)
    scorer = Scorer.load(copy)
    with pytest.raises(BundleError, match=r"other.onnx: outputs must be .*'known'.*, are .*'named'"):
        scorer.recommend(10)


def test_a_graph_that_fails_is_a_bundle_error(bundles, copy, tables):
    path = copy / "score.onnx"
    model = onnx.load(path, load_external_data=False)
    encoder = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    values = next(attribute for attribute in encoder.attribute if attribute.name == "values_tensor")
    values.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(values.t) + 1000))
    path.write_bytes(model.SerializeToString())
    bundles.reseal(copy)
    with pytest.raises(BundleError, match=r"score.onnx: the graph failed: .*; export the bundle again"):
        Scorer.load(copy).score(10, 0)


def test_sessions_share_the_tables(larger):
    """There is one copy of the tables, however many graphs read them."""
    folder, _ = larger

    def memory():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) << 10

    scorer = Scorer.load(folder)
    gc.collect()
    before = memory()
    scorer.graphs.open_all()
    for user in (10, 20, 30):
        scorer.recommend(user)
        scorer.similar_items(0)
    assert memory() - before < 40 << 20  # sessions and their working memory
    weights = np.frombuffer(scorer.graphs.files.view("weights.bin"), np.uint8)
    assert scorer.graphs.tables
    assert all(np.shares_memory(table, weights) for table in scorer.graphs.tables)


def fill_tables(folder, bundles, number):
    """Replace the values of all tables."""
    path = folder / "weights.bin"
    table = np.frombuffer(path.read_bytes(), "<f4").copy()
    table[table != 0] = number
    path.write_bytes(table.tobytes())
    bundles.reseal(folder)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("choices", [False, True])
def test_tables_that_are_not_finite_are_refused_or_all_results_are_finite(bundles, tmp_path, number, choices):
    folder = bundles.write_bundle(tmp_path / "damaged", bundles.make_rich(bundles.make_tables(choices=choices)))
    fill_tables(folder, bundles, number)
    if np.isnan(number):
        refused(folder, "weights.bin: tables must not contain NaN, .* does")
    scorer = Scorer.load(folder, verify=False)  # as if only sums overflowed
    num_finite = 0
    for call in (
        lambda: scorer.score([10, 20, 5], [0, 3, 0]),
        lambda: scorer.recommend(10).scores,
        lambda: scorer.recommend(10, diversity=0.5).scores,
        lambda: scorer.recommend(10, categories="Drama").scores,
        lambda: scorer.similar_items(0).scores,
        lambda: scorer.recommend_many([10, 20], 3).scores,
        lambda: scorer.factors([0, 3]),
    ):
        try:
            values = call()
        except BundleError as error:
            assert "must be finite numbers" in str(error)  # noqa: PT017
        else:
            assert np.isfinite(values).all()
            num_finite += 1
    assert num_finite < 7


@pytest.mark.parametrize("size", [1, 10, 999, 1000, 1001, 5000])
def test_every_value_that_is_not_finite_is_detected(size):
    rng = np.random.default_rng(size)
    plain = (rng.normal(size=size) * 10.0 ** rng.integers(-20, 16, size)).astype(np.float32)
    assert not may_be_infinite(plain) and not may_be_infinite(np.zeros(size, np.float32))
    for bits in (0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFC00000):
        for position in {0, size // 2, size - 1}:
            damaged = plain.copy()
            damaged.view(np.uint32)[position] = bits
            assert may_be_infinite(damaged) and may_be_infinite(damaged.reshape(1, size, 1))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_nan_is_distinguished_from_infinity(kind):
    table = np.array([0, 1, -1, np.inf, -np.inf, np.finfo(kind).max, np.finfo(kind).tiny], kind)
    assert not has_nan(table) and not has_nan(table[:0])
    for sign in (1, -1):
        assert has_nan(np.append(table, kind(sign * np.nan)))
