"""The search in two passes, compared with sorting all scores."""

import functools

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.models.network import DotProductTables, RatingScale
from cflightning_export.graphs.catalogue import catalogue_logits, top_k_graphs
from cflightning_export.graphs.quantized_vectors import ITEM_LIMIT, MASKED, USER_OFFSET, quantize, required_candidates
from cflightning_export.graphs.two_pass import (
    GROUP,
    Candidates,
    estimate_candidates,
    find_search,
    sample_required_candidates,
    two_pass_graph,
)

USERS, ITEMS, DIM = 40, 3000, 12


def make(users=USERS, items=ITEMS, dim=DIM, seed=0, spread=None):
    """Factors of a falling spectrum; popular items have larger biases and vectors."""
    rng = np.random.default_rng(seed)
    spectrum = 1 / (1 + np.arange(dim))
    popular = rng.lognormal(0, 0.3 if spread is None else spread, (items + 1, 1))
    tables = (
        rng.standard_normal((users + 1, dim)) * spectrum,
        rng.standard_normal((items + 1, dim)) * popular * 0.5,
        rng.standard_normal(users + 1) * 0.3,
        rng.standard_normal(items + 1) * 0.3 + popular[:, 0] * 0.1,
    )
    for table in tables:
        table[0] = 0
    return folded(*tables)


shared = functools.cache(make)
"""The same for tests that do not change the tables."""
cached_search = functools.cache(find_search)


def folded(*tables, global_bias=0.2):
    return DotProductTables(*(torch.tensor(table, dtype=torch.float32) for table in tables), torch.tensor(global_bias))


def vocabulary(tables, strings=False):
    users, items = np.arange(1, len(tables.user_bias)) * 3, np.arange(len(tables.item_bias) - 1) * 2 - 7
    if strings:
        users = np.array([f"u{one:06d}" for one in users], object)
        items = np.array([f"{one + 7:06d}ö" for one in items], object)
    return Vocabulary(Ids(users), Ids(items))


class TwoPass:
    """The graph, with an output for whether the first round proved the lists, and a slow reference."""

    def __init__(self, tables, scale=None, strings=False, filtered=False, rounds=tuple):
        self.tables, self.scale = tables, scale or RatingScale((1.0, 5.0))
        self.vocabulary, self.filtered = vocabulary(tables, strings), filtered
        search = cached_search(tables)
        search = search._replace(rounds=rounds(search.rounds))
        self.only = len(search.rounds) == 1  # after which all items are scored
        model = two_pass_graph(
            "filtered" if filtered else "recommend", search, self.scale, self.vocabulary, filtered=filtered
        )
        [branches] = [node for node in model.graph.node if node.op_type == "If"]
        self.unproven = branches.input[0]
        model.graph.output.append(helper.make_tensor_value_info(self.unproven, TensorProto.BOOL, []))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def ids(self, side, rows):
        known = getattr(self.vocabulary, side)
        unknown = -99 if known.kind == "int64" else "?"
        return np.array([unknown if row == 0 else known.values[row - 1] for row in rows], dtype=known.values.dtype)

    def __call__(self, users, k, excluded=(), allowed=None):
        """Indices and scores of recommendations, and whether the first round left a list unproven."""
        more = {"allowed": allowed} if self.filtered else {}
        at = np.array([pair[0] for pair in excluded], np.int64)
        item, score, known, unproven = self.session.run(
            ["item", "score", "known", self.unproven],
            {
                "user": self.ids("users", users),
                "k": np.array([k]),
                "exclude_user": at,
                "exclude_item": self.ids("items", [pair[1] for pair in excluded]),
                **more,
            },
        )
        assert known.tolist() == [user > 0 for user in users]
        return self.vocabulary.items.indices(item.reshape(-1)).reshape(item.shape), score, bool(unproven)

    def logits(self, user):
        vectors, items, bias, item_bias, global_bias = (table.double().numpy() for table in self.tables)
        return (vectors[user] @ items.T + item_bias + bias[user] + global_bias)[1:]

    def check(self, users, k, excluded=(), allowed=None):
        """Compare with sorting; return whether all items were scored, as far as that can be seen."""
        rows, scores, unproven = self(users, k, excluded, allowed)
        for at, user in enumerate(users):
            logits = self.logits(user)
            logits[[row - 1 for pair, row in excluded if pair == at and row]] = -np.inf
            logits[slice(0) if allowed is None else ~allowed] = -np.inf
            best = np.argsort(-logits, kind="stable")[:k]
            best = best[np.isfinite(logits[best])]
            assert rows[at][: len(best)].tolist() == (best + 1).tolist()
            expected = self.scale.eval()(torch.from_numpy(logits[best])).numpy()
            np.testing.assert_allclose(scores[at][: len(best)], expected, rtol=2e-6, atol=2e-6)
            assert np.isneginf(scores[at][len(best) :]).all()
        return unproven and self.only


def last(found):
    return found[-1:]


def hasty(found):
    """A first round of no more candidates than the list is long."""
    return (Candidates(0, 1), *found[1:])


@pytest.fixture(scope="module", params=[tuple, last, hasty])
def graph(request):
    return TwoPass(shared(), rounds=request.param)


def test_recommendations_are_those_of_sorting_all_scores(graph):
    assert not graph.check(range(1, USERS + 1), 10)
    for user in range(USERS + 1):  # the unknown user among them
        assert not graph.check([user], 10)
        graph.check([user], 1)
    rows, scores, _ = graph([], 10)
    assert rows.shape == scores.shape == (0, 10)


@pytest.mark.parametrize("scale", [None, RatingScale((1.0, 5.0), margin=0.1), RatingScale((0.5, 5.0), sigmoid=False),
                                   RatingScale(None)])  # fmt: skip
def test_string_ids_and_scales(scale):
    graph = TwoPass(shared(seed=1), scale, strings=True, rounds=last)
    assert not graph.check([3, 0, 3, USERS], 10, [(0, 5), (3, 7)])


def test_an_unproven_list_takes_a_second_round():
    graph, careful = TwoPass(shared(), rounds=hasty), TwoPass(shared(), rounds=last)
    unproven_users = [user for user in range(1, USERS + 1) if graph([user], 10)[2]]
    assert len(unproven_users) > USERS / 2
    for user in unproven_users:
        assert not careful([user], 10)[2]  # so no more than a second round is taken
        graph.check([user], 10)
    rows, _, unproven = graph(range(1, USERS + 1), 10)  # one of them makes the whole call take a second round
    assert unproven
    assert rows.tolist() == careful(range(1, USERS + 1), 10)[0].tolist()


def test_a_user_alone_gets_the_list_of_the_batch(graph):
    together, scores, _ = graph(range(1, 9), 20)
    for user in range(1, 9):
        alone, score, _ = graph([user], 20)
        assert alone[0].tolist() == together[user - 1].tolist()
        np.testing.assert_allclose(score[0], scores[user - 1], rtol=1e-6)


def test_long_lists_are_scored_exactly(graph):
    rows, scores, unproven = graph([2], ITEMS + 5)
    assert unproven
    assert sorted(rows[0].tolist()) == list(range(1, ITEMS + 1))
    assert (np.diff(scores[0]) <= 0).all()
    for k in (100, 500, ITEMS - 1):
        graph.check([5], k)


def test_exclusions_are_replaced_by_the_next_best(graph):
    order = np.argsort(-graph.logits(4)) + 1
    seen = [(1, row) for row in order[:30].tolist()] + [(1, 0), (1, int(order[3])), (0, int(order[0]))]
    assert not graph.check([7, 4], 10, seen)
    graph.check([7, 4], 10, seen + [(0, row) for row in order[:1000].tolist()])


@pytest.mark.parametrize("left", [0, 3])
def test_nearly_all_items_excluded(graph, left):
    graph.check([4], 10, [(0, row) for row in range(1, ITEMS + 1 - left)])


def test_items_beside_the_padding_are_found(graph):
    assert (ITEMS + 1) % GROUP  # the last group ends in padding
    left = {ITEMS, ITEMS - 1, ITEMS - 2}
    graph.check([4], 2, [(0, row) for row in range(1, ITEMS + 1) if row not in left])
    graph.check([4], 10, [(0, row) for row in range(1, ITEMS + 1) if row not in left])


def test_ties_are_in_the_order_of_the_catalogue():
    tables = make(seed=2)
    for table in (tables.item_vectors, tables.item_bias):
        table[1:] = table[1:].flip(0)
        table[1001:2001] = table[1]  # a thousand equal items, more than two rounds take
        table[11:20] = table[10]
    graph = TwoPass(tables)
    for user in range(0, USERS + 1, 5):
        graph.check([user], 30)


def test_outliers_cost_time_but_no_exactness():
    tables = make(seed=3)
    tables.item_vectors[77] *= 1000  # the codes of all others are nearly zero
    assert TwoPass(tables, rounds=last).check(range(1, 11), 10)
    TwoPass(tables).check(range(1, 11), 10)
    tables = make(seed=4)
    tables.item_bias[5], tables.item_bias[6] = 1e4, -1e4
    TwoPass(tables).check([1, 2, 0], 10)


@pytest.mark.parametrize("kind", ["zero users", "zero items", "no biases", "one factor", "opposites", "tiny", "huge"])
def test_odd_tables(kind):
    tables = make(dim=1 if kind == "one factor" else DIM, seed=5)
    if kind == "zero users":
        tables.user_vectors[:] = 0
    elif kind == "zero items":
        tables.item_vectors[:] = 0
    elif kind == "no biases":
        tables.item_bias[:] = 0
    elif kind == "opposites":  # all products of codes are largest: no sum of two may saturate
        tables.item_vectors[1:] = tables.item_vectors[1:].sign()
        tables.user_vectors[1:] = tables.user_vectors[1:].sign()
    elif kind in ("tiny", "huge"):
        for table in tables[:4]:
            table *= 1e-12 if kind == "tiny" else 1e5
        tables.global_bias.zero_()
    graph = TwoPass(tables, RatingScale(None))
    for user in (0, 1, 9):
        rows, scores, _ = graph([user], 10)
        logits = graph.logits(user)
        size = np.abs(logits).max() + 1e-30
        np.testing.assert_allclose(scores[0] / size, np.sort(logits)[::-1][:10] / size, atol=1e-6)
        np.testing.assert_allclose(logits[rows[0] - 1] / size, scores[0] / size, atol=1e-6)
        assert len(set(rows[0].tolist())) == 10


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_for_every_pair(seed):
    tables = make(30, 800, 6 + seed, seed, spread=1.0)
    codes = quantize(tables)
    assert codes.user.dtype == np.uint8
    assert codes.user.min() >= 1
    assert np.abs(codes.item.astype(int)).max() == ITEM_LIMIT
    rough = codes.user.astype(np.int64) @ codes.item.astype(np.int64) + codes.shift
    assert (rough[:, 0] < MASKED // 2).all()
    bound = rough * codes.step[:, None].astype(float) + codes.slack[:, None]
    exact = tables.user_vectors.double().numpy() @ tables.item_vectors.double().numpy().T + tables.item_bias.numpy()
    assert (exact <= bound)[:, 1:].all()
    assert ((bound - exact)[:, 1:].mean(1) < 2 * exact[:, 1:].std(1)).all()  # the bound is tight
    np.testing.assert_array_equal(codes.shift[1:], -USER_OFFSET * codes.item[:, 1:].astype(int).sum(0))


def test_the_estimated_candidates_prove_the_lists():
    tables = make(seed=6)
    codes, users = quantize(tables), np.arange(1, USERS + 1)
    first, chosen = estimate_candidates(sample_required_candidates(codes, tables))
    for k in (10, 100):
        assert first.base + first.slope * k <= chosen.base + chosen.slope * k
        exact = tables.user_vectors.numpy() @ tables.item_vectors.numpy().T + tables.item_bias.numpy()
        rough = codes.user.astype(np.int64) @ codes.item.astype(np.int64) + codes.shift
        for user, count in zip(users, required_candidates(codes, tables, users, (k,))[0], strict=True):
            least = np.sort(exact[user, 1:])[-k]
            left_out = np.sort(rough[user, 1:])[::-1][count - 1] * codes.step[user] + codes.slack[user]
            assert left_out < least
            assert count <= chosen.base + chosen.slope * k


@pytest.mark.parametrize(("share", "proven"), [(1.0, True), (0.5, True), (0.004, False), (0.0, False)])
@pytest.mark.parametrize("rounds", [tuple, last, hasty])
def test_only_allowed_items(share, proven, rounds):
    """If fewer items are allowed than the second round takes, all items are scored."""
    graph, rng = TwoPass(shared(), filtered=True, rounds=rounds), np.random.default_rng(3)
    allowed = rng.random(ITEMS) < share
    pairs = [(1, row) for row in rng.integers(0, ITEMS + 1, 5).tolist()]
    assert graph.check([4, 0, 9], 10, pairs, allowed) == (graph.only and not proven)
    assert graph.check([4], 10, (), allowed) == (graph.only and not proven)


@pytest.mark.slow
def test_only_large_catalogues_are_searched_in_two_passes():
    words, network = vocabulary(shared()), EmbeddingDot(USERS + 1, ITEMS + 1, DIM, (1.0, 5.0))
    network.set_tables(shared())
    mlp = EmbeddingMLP(USERS + 1, ITEMS + 1, DIM)

    def two_passes(network, min_items):
        graphs = dict(top_k_graphs(network, words, catalogue_logits(network), min_items))
        assert list(graphs) == ["recommend", "filtered"]
        return [any(node.op_type == "MatMulInteger" for node in model.graph.node) for model in graphs.values()]

    assert two_passes(network, ITEMS + 1) == [True, True]
    assert two_passes(mlp, ITEMS + 1) == [False, False]  # no dot product
    assert two_passes(network, ITEMS + 2) == [False, False]


def test_a_catalogue_whose_lists_cannot_be_proven_is_searched_in_one_pass():
    """One item far from all others in each factor leaves the others no bits."""
    tables = make(users=30, items=2000, seed=8)
    with torch.no_grad():
        tables.item_vectors[1 : DIM + 1] = 500 * torch.eye(DIM)
    assert find_search(tables).provable == 0
    assert cached_search(shared()).provable > 0.9
    network = EmbeddingDot(31, 2001, DIM)
    network.set_tables(tables)
    graphs = dict(top_k_graphs(network, vocabulary(tables), catalogue_logits(network), 1000))
    assert all(node.op_type != "If" for model in graphs.values() for node in model.graph.node)
