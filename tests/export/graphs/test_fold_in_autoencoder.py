"""Fold-in and explanations by the encoder of a linear autoencoder, compared with sums in double precision."""

import numpy as np
import onnx
import pytest
import torch

from cflightning import EmbeddingDotTask
from cflightning.data.ids import Ids
from cflightning.errors import CheckpointError, ExportError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.graphs.explain import explain_autoencoder_graph
from cflightning_export.graphs.fold_in_autoencoder import fold_in_autoencoder_graph
from cflightning_export.onnx_tools.quantization import measure_change, round_table, round_tables
from cflightning_serve import Scorer

from ..fold_in_data import DIM, USERS, autoencoder_spec, fold, make_tables, run
from ..frames import make_frame

MEAN_USER = np.linspace(-1, 1, DIM, dtype=np.float32)
LOOSE = {"max_rmse_change": 10.0, "min_overlap": 0.0}
TASKS = {
    "ease": {"dim": 8, "objective": "ease"},
    "multitask": {"dim": 4, "objective": "multitask", "ranking": {"objective": "ease", "dim": 8}},
}


@pytest.fixture(scope="module")
def spec():
    return autoencoder_spec(MEAN_USER, user_bias=0.3)


@pytest.mark.parametrize(
    ("index", "weight"),
    [
        ([3, 17, 44, 60], [np.nan] * 4),
        ([3, 17, 44], [1.0, 4.0, 0.5]),
        ([3, 0, 17, 0], [0.25, 9.0, 0.5, np.nan]),
        ([5, 5, 5], [np.nan, 2.0, 0.1]),
        ([0, 0], [np.nan, 2.0]),
        ([9], [1e-3]),
        ([], []),
    ],
)
def test_the_vector_is_the_weighted_sum_of_the_rows_of_the_encoder(spec, index, weight):
    ids = [spec.ids.values[row - 1] if row else -7 for row in index]
    answer = fold(fold_in_autoencoder_graph("fold_in_choice", spec), spec.ids, ids, weight, k=5, score=ids)
    weights = np.where(np.isnan(weight), 1, weight) * (np.array(index) > 0)
    expected = weights @ spec.encoder[np.array(index, int)] + max(1 - weights.sum(), 0) * MEAN_USER
    np.testing.assert_allclose(answer["vector"], [*expected, np.float32(0.3)], atol=1e-6)
    scores = spec.vectors @ expected + spec.bias + 0.3
    np.testing.assert_allclose(answer["asked"], scores[np.array(index, int)], atol=1e-5)
    assert answer["known"].tolist() == [row > 0 for row in index]
    scores[[0, *index]] = -np.inf
    best = np.argsort(-scores, kind="stable")[:5]
    assert answer["best"].tolist() == spec.ids.values[best - 1].tolist()
    np.testing.assert_allclose(answer["score"], scores[best], atol=1e-5)


@pytest.mark.parametrize("weight", [[], [np.nan] * 4, [0.25, 0.125, 0.25, 3.0]])
def test_contributions_are_products_of_encoder_and_item_vectors(spec, weight):
    model = explain_autoencoder_graph(spec, Ids(np.arange(USERS)), make_tables())
    ids, index, target = spec.ids.values, np.array([3, 17, 44][: len(weight)], int), np.arange(50, 60)
    item = np.append(ids[index - 1], [-7] * (len(weight) - len(index))).astype(np.int64)
    feeds = {"item": item, "rating": np.array(weight, np.float32), "target": ids[target - 1]}
    answer = run(model, **feeds, user=np.empty(0, np.int64))
    weights = np.nan_to_num(np.array(weight[: len(index)]), nan=1)
    expected = spec.vectors[target] @ (spec.encoder[index] * weights[:, None]).T
    np.testing.assert_allclose(answer["contribution"][:, : len(index)], expected, atol=1e-5)
    assert not answer["contribution"][:, len(index) :].any()
    missing = max(1 - weights.sum(), 0)
    base = missing * spec.vectors[target] @ MEAN_USER + spec.bias[target] + 0.3
    np.testing.assert_allclose(answer["base"], base, atol=1e-5)
    np.testing.assert_allclose(answer["rest"], 0, atol=1e-5)
    folded = fold(fold_in_autoencoder_graph("fold_in", spec), spec.ids, item, weight, score=ids[target - 1])
    np.testing.assert_allclose(answer["logit"], folded["asked"], atol=1e-5)


@pytest.fixture(scope="module", params=TASKS)
def exported(request, tmp_path_factory, make_run):
    folder = tmp_path_factory.mktemp("autoencoder")
    make_run(folder / "run", make_frame(), EmbeddingDotTask(**TASKS[request.param]))
    return load_task(folder / "run" / "checkpoints" / "best.ckpt"), folder / "run"


def test_a_known_user_is_folded_in_to_the_trained_vector(exported, tmp_path):
    task, path = exported
    scorer = Scorer.load(export_bundle(path, tmp_path / "bundle", with_history=True))
    vectors, users = task.recommender.tables().user_vectors.numpy(), task.vocabulary.users.values
    for row in (1, 7, len(users)):
        items, ratings = scorer.history(users[row - 1])
        new = scorer.fold_in(items, ratings, k=5)
        np.testing.assert_allclose(new.vector[:-1], vectors[row], atol=1e-6 * abs(vectors).max())
        known = scorer.recommend(users[row - 1], 5, exclude=items, exclude_seen=False)
        assert new.items.tolist() == known.items.tolist()
        np.testing.assert_allclose(new.scores, known.scores, atol=1e-6)
        explained = scorer.explain(None, known.items[0], items=items, ratings=ratings)
        assert explained.rest == pytest.approx(0, abs=1e-5)
        assert explained.contributions.sum() + explained.base == pytest.approx(known.scores[0], abs=1e-5)


@pytest.mark.parametrize(("precision", "kind"), [("fp16", np.float16), ("int8", np.int8)])
def test_a_rounded_encoder_is_stored_in_its_precision(exported, tmp_path, precision, kind):
    task, path = exported
    scorer = Scorer.load(export_bundle(path, tmp_path / "bundle", precision=precision, **LOOSE))
    name = "fold_in_choice" if "fold_in_choice" in scorer.manifest.graphs else "fold_in"
    for graph in (name, "explain"):
        tensors = onnx.load(scorer.manifest.path(graph), load_external_data=False).graph.initializer
        kinds = {tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type) for tensor in tensors}
        assert kinds["encoder.code"] == kind
    rounded = round_table("encoder", task.recommender.encoder.numpy(), precision)
    items = task.vocabulary.items.values
    np.testing.assert_allclose(scorer.fold_in(items[[2, 5]]).vector[:-1], rounded[[3, 6]].sum(0), atol=1e-6)


def test_lists_of_new_users_count_for_the_change_by_rounding():
    networks = [EmbeddingDot(300, 200, 16, std=0.3, autoencoder=True).eval() for _ in range(2)]
    with torch.no_grad():
        networks[0].encoder[1:] = torch.randn(199, 16, generator=torch.Generator().manual_seed(0))
    networks[1].load_state_dict(networks[0].state_dict())
    before, after = ({"score": network, "recommend": network} for network in networks)
    assert measure_change(before, after) == (0.0, 1.0)
    networks[1].encoder[1:] = networks[1].encoder[1:].flip(0)
    assert measure_change(before, after).overlap < 0.5
    assert sum(np.array_equal(table, networks[1].encoder) for table in round_tables(after, "int8")) == 1


@pytest.mark.parametrize("encoder", [None, torch.zeros(26, 7), torch.zeros(25, 8)])
def test_a_checkpoint_without_its_encoder_is_refused(exported, tmp_path, encoder):
    content = torch.load(exported[1] / "checkpoints" / "best.ckpt", weights_only=True)
    [name] = [name for name in content["state_dict"] if name.endswith("encoder")]
    if encoder is None:
        del content["state_dict"][name]
    else:
        content["state_dict"][name] = encoder
    torch.save(content, tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match="does not fit EmbeddingDotTask"):
        export_bundle(tmp_path / "run.ckpt", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_users_of_a_linear_autoencoder_are_not_refitted(exported, tmp_path):
    task, path = exported
    if task.metadata.objective == "ease":
        with pytest.raises(ExportError, match="--refit-users: must meet one network of ratings"):
            export_bundle(path, tmp_path / "bundle", refit_users=True)
    else:
        scorer = Scorer.load(export_bundle(path, tmp_path / "bundle", refit_users=True, new_items=True))
        items = task.vocabulary.items.values[[2, 5]]
        expected = task.recommender.encoder[[3, 6]].sum(0).numpy()
        np.testing.assert_allclose(scorer.fold_in(items).vector[:-1], expected, atol=1e-6)
        assert "fold_in_item" in scorer.manifest.graphs
