"""The same bits on any number of threads, the project's own and torch's, wherever that is promised."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.models.ensemble import average, compress
from cflightning.models.network import DotProductTables, RatingScale
from cflightning.sampling.chain import Chain
from cflightning.sampling.svdpp import draw_svdpp_vectors
from cflightning.solvers.ease import ease
from cflightning.solvers.ials import AlternatingLeastSquares
from cflightning.solvers.svd import DegreeScaledSVD
from cflightning.utils.interactions import make_interactions
from cflightning.utils.torch_threads import one_thread

COUNTS = (1, 2, 3, 4, 5, 7)
USERS, ITEMS = 302, 204
"""Rows of tables; odd numbers of them are rated, and neither is a multiple of a vector's width."""


@pytest.fixture(autouse=True)
def torch_threads():
    """Whatever a test does to torch's threads, others do not see it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pairs(n=9001, seed=0):
    """Pairs of users from 1 to 301 and items from 1 to 203, as rows."""
    rng = np.random.default_rng(seed)
    drawn = rng.permutation((USERS - 1) * (ITEMS - 1))[:n]
    return tuple(torch.from_numpy((column + 1).astype(np.int32)) for column in np.divmod(drawn, ITEMS - 1))


def by_threads(make):
    """Yield the results with every number of threads of torch and of the project."""
    for count in COUNTS:
        for own in {1, count}:
            torch.set_num_threads(count)
            yield count, own, make(own)


def assert_same_bits(make):
    first = None
    for count, own, found in by_threads(make):
        first = found if first is None else first
        for one, other in zip(first, found, strict=True):
            assert torch.equal(one, other), f"{count} threads of torch, {own} of ours"


@pytest.mark.parametrize("dim", [5, 33, 120, 150])
def test_svd(dim):
    interactions = make_interactions(*pairs(), USERS, ITEMS)

    def make(threads):
        solver = DegreeScaledSVD(interactions, dim, threads=threads)
        solver.sweep()
        solver.sweep()
        return solver.vectors()

    assert_same_bits(make)


@pytest.mark.parametrize("dim", [13, 48, 65])
def test_ials(dim):
    interactions = make_interactions(*pairs(), USERS, ITEMS)

    def make(threads):
        solver = AlternatingLeastSquares(interactions, weight=0.1, l2=0.007, threads=threads)
        tables = [table.clone() for table in solver.start(dim)]
        solver.sweep(*tables)
        return tables

    assert_same_bits(make)


@pytest.mark.parametrize("width", [7, 64, 131])
def test_compressing_a_mean(width):
    generator = torch.Generator().manual_seed(0)
    sizes = (USERS, width), (ITEMS, width), (USERS,), (ITEMS,), ()
    members = [DotProductTables(*(torch.randn(size, generator=generator) for size in sizes)) for _ in range(2)]
    assert_same_bits(lambda _: compress(average(members, [1.0, 2.0]), width))


def sampled(threads, dim, draw_vectors):
    rating = torch.from_numpy(np.random.default_rng(1).integers(1, 6, 9001).astype(np.float32))
    chain = Chain(*pairs(), rating, num_users=USERS, num_items=ITEMS, dim=dim, threads=threads,
                  draw_vectors=draw_vectors, scale=RatingScale((1.0, 5.0), True, 0.125))  # fmt: skip
    for _ in range(2):
        chain.sweep()
    chain.close()
    return list(chain.state.values())


@pytest.mark.parametrize("dim", [3, 16, 33])
def test_sampling_by_the_compiled_pass(dim):
    kernel = pytest.importorskip("cflightning.kernels.gibbs", reason="needs the extra `fast`").draw_svdpp_vectors
    assert_same_bits(lambda threads: sampled(threads, dim, kernel))


def test_sampling_by_the_plain_pass_is_the_same_to_rounding():
    first = sampled(1, 5, draw_svdpp_vectors)
    for threads in COUNTS[1:]:
        for one, other in zip(first, sampled(threads, 5, draw_svdpp_vectors), strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)  # numpy's product of a few columns is BLAS's


@pytest.mark.parametrize("width", [2, 5, 16, 17, 33, 65])
def test_columns_of_a_bag_may_be_cut_anywhere(width):
    kernel = pytest.importorskip("cflightning.kernels.gibbs", reason="needs the extra `fast`").draw_svdpp_vectors
    rng = np.random.default_rng(width)
    near = [np.sort(rng.choice(39, 17, replace=False)).astype(np.int32) for _ in range(29)]
    rows, ends = np.concatenate(near), np.arange(30, dtype=np.int64) * 17
    weight = rng.uniform(0.3, 1, 39).astype(np.float32)
    squares = np.array([(weight[one] ** 2).sum() for one in near], np.float32)
    start = [rng.standard_normal((size, width), dtype=np.float32) for size in (29, 29, 39)]
    found = []
    for parts in COUNTS:
        tables = [table.copy() for table in start]
        for some in np.array_split(np.arange(width), parts):
            if len(some):
                columns = [np.ascontiguousarray(table[:, some]) for table in tables]
                kernel(rows, ends, weight, squares, np.float32(1.3), *columns)
                for table, column in zip(tables, columns, strict=True):
                    table[:, some] = column
        found.append(tables)
    for tables in found[1:]:
        for one, other in zip(found[0], tables, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_closed_form_is_the_same_to_rounding():
    interactions = make_interactions(*pairs(), USERS, ITEMS)
    found = [weights for *_, weights in by_threads(lambda threads: ease(interactions, 20.0, threads=threads))]
    for weights in found[1:]:
        torch.testing.assert_close(weights, found[0], atol=1e-5, rtol=1e-4)


def test_one_thread_is_for_its_block_alone():
    torch.set_num_threads(3)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(ValueError, match="x"), one_thread():
        raise ValueError("x")
    assert torch.get_num_threads() == 3


FITS = {
    "multitask": {},
    "members": {"objective": "mse", "members": 2},
    "without svdpp": {"objective": "mse", "svdpp": "none"},
    "gibbs": {"objective": "mse", "engine": "gibbs"},
    **{objective: {"objective": objective} for objective in ("bce", "softmax", "svd", "ials")},
}


@pytest.mark.parametrize("kind", [*FITS])
@pytest.mark.parametrize(
    "counts", [pytest.param((1, 3), id="few"), pytest.param(COUNTS, id="all", marks=pytest.mark.slow)]
)
def test_fits(kind, counts):
    pytest.importorskip("numba", reason="the compiled engines need the extra `fast`")
    found = []
    for count in counts:
        torch.set_num_threads(count)
        synthetic = {"num_users": 301, "num_items": 203, "num_ratings": 5001}
        task = EmbeddingDotTask(dim=64, **FITS[kind])
        trainer = Trainer(accelerator="cpu", devices=1, max_epochs=2, logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(
            task, RatingsDataModule(source="synthetic", synthetic=synthetic, split=SplitOptions(val_fraction=0.05))
        )
        found.append(task.state_dict())
    for state in found[1:]:
        assert [name for name, table in state.items() if not torch.equal(table, found[0][name])] == []
