"""The compiled SVD++ term: equal to the plain one, and independent of the number of threads."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")

from concurrent.futures import ThreadPoolExecutor

from cflightning.kernels.svdpp import BLOCK_ROWS, CompiledSvdppTerm
from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.interactions import Interactions


def make(kind, dim, seed=0, users=3 * BLOCK_ROWS + 5, items=BLOCK_ROWS + 1, n=4000):
    rng = np.random.default_rng(seed)
    pair = np.unique(np.stack([rng.integers(1, users - 2, n), rng.integers(1, items, n)], 1), axis=0).astype(np.int32)
    user, item = map(torch.from_numpy, np.ascontiguousarray(pair.T))
    return kind(*Interactions.from_pairs(user, item, users, items), dim, 0.6, 1.4)


def steps(term, dim, count=3):
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(len(term.mean), dim, generator=generator)
    for number in range(count):
        term.step(table, torch.rand(len(table), generator=generator) / 5 if number else None)
    return torch.cat([table.reshape(-1), term.mean.reshape(-1), term.vectors.reshape(-1)])


@pytest.mark.parametrize("dim", [1, 3, 16, 64])
def test_the_compiled_term_equals_the_plain_one(dim):
    torch.testing.assert_close(
        steps(make(CompiledSvdppTerm, dim), dim), steps(make(SvdppTerm, dim), dim), atol=1e-5, rtol=1e-4
    )


def test_the_result_does_not_depend_on_the_number_of_threads():
    single = steps(make(CompiledSvdppTerm, 8), 8)
    for helpers in (1, 4):
        term = make(CompiledSvdppTerm, 8)
        with ThreadPoolExecutor(helpers) as pool:
            term.use_threads(pool, helpers)
            assert torch.equal(steps(term, 8), single)
