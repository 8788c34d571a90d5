"""The kernel run by Triton's interpreter on the CPU; started by test_fused_gpu.py in its own process."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="the kernel needs Triton, which torch with CUDA or the extra `gpu` brings")

import triton
from gpu_tables import CONSTANTS, ITEMS, USERS, make
from reference_fused_dot_gpu import reference_stage

from cflightning.engines.fused_gpu import FusedGpuDescent, GpuStageLoader
from cflightning.engines.stage_engine import RowwiseAdagrad
from cflightning.kernels import fused_dot_gpu
from cflightning.kernels.adagrad import BIAS, GPU_BLOCK
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty

pytestmark = pytest.mark.skipif(
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason="the interpreter of this Triton does not run with this numpy",
)


def close(left, right, tolerance=1e-5):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("n", "dim", "programs"),
    [
        (1000, 1, 1),  # a ragged block; every user and item many times
        (500, 3, 1),
        (640, 16, 1),  # no ragged block
        (300, 50, 1),
        (300, 64, 1),
        (100, 130, 1),
        (500, 3, 4),  # one program after the other
        (130, 16, 100),  # more programs than units
        (1, 8, 1),
        (0, 8, 1),
        (65, 600, 1),  # the ragged block holds one rating
    ],
)
def test_kernel_equals_the_reference(n, dim, programs):
    columns, fast = make(n, dim)
    slow = [table.clone() for table in fast]
    before = [table.clone() for table in fast]
    ratings, _ = fused_dot_gpu.shape(dim)
    units = len(columns[3]) * (GPU_BLOCK // ratings)
    loss = fused_dot_gpu.train_stage(*columns, *fast, *CONSTANTS, programs=programs)
    expected = reference_stage(*columns, *slow, *CONSTANTS, programs=max(1, min(programs, units)), ratings=ratings)
    close(fast, slow)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-6)
    assert loss.dtype == torch.float64
    assert loss.shape == ()
    assert all(torch.equal(a, b) for a, b in zip(fast, before, strict=True)) is (n == 0)


@pytest.mark.parametrize(("ratings", "dim"), [(1, 5), (2, 3), (32, 20), (64, 64)])
def test_any_number_of_ratings_at_once(ratings, dim):
    columns, fast = make(150, dim)
    slow = [table.clone() for table in fast]
    fused_dot_gpu.train_stage(*columns, *fast, *CONSTANTS, programs=1, ratings=ratings)
    reference_stage(*columns, *slow, *CONSTANTS, ratings=ratings)
    close(fast, slow)


def test_one_rating_in_a_handful_that_is_all_one_user_and_item():
    columns, fast = make(GPU_BLOCK, 8)
    columns[0][:], columns[1][:] = 3, 5  # 64 changes of the same rows at once
    slow = [table.clone() for table in fast]
    before = [table.clone() for table in fast]
    fused_dot_gpu.train_stage(*columns, *fast, *CONSTANTS, programs=1)
    reference_stage(*columns, *slow, *CONSTANTS, ratings=fused_dot_gpu.shape(8)[0])
    close(fast, slow, 1e-4)  # sums of 64, in another order
    untouched = torch.arange(USERS) != 3
    assert torch.equal(fast[0][untouched], before[0][untouched])
    assert torch.equal(fast[2][untouched], before[2][untouched])


def test_a_part_of_the_order_trains_that_part_alone():
    columns, fast = make(5 * GPU_BLOCK, 4)
    columns[3] = columns[3][:2]
    at = (columns[3].long()[:, None] * GPU_BLOCK + torch.arange(GPU_BLOCK)).reshape(-1)
    before = fast[1].clone()
    fused_dot_gpu.train_stage(*columns, *fast, *CONSTANTS, programs=1)
    changed = (fast[1] != before).any(1).nonzero().reshape(-1)
    assert set(changed.tolist()) == set(columns[1][at].tolist())


def test_shape_and_programs():
    for dim in (1, 7, 16, 50, 64, 100, 128, 256, 1000, 5000):
        ratings, warps = fused_dot_gpu.shape(dim)
        assert GPU_BLOCK % ratings == 0
        assert warps in {1, 2, 4, 8}
    total, most = 25_000_000, 81_000  # a MovieLens 25M
    grid = fused_dot_gpu.programs(total, most, 132, *fused_dot_gpu.shape(64))
    assert grid * fused_dot_gpu.shape(64)[0] * most / total <= fused_dot_gpu.MAX_IN_FLIGHT_OF_ONE_INDEX
    assert 1000 <= grid <= 132 * fused_dot_gpu.WARPS_PER_SM
    assert fused_dot_gpu.programs(100, 100, 132, 64, 1) == 1


@pytest.mark.parametrize("programs", [1, 7])
def test_engine_learns_planted_factors_by_the_kernel_as_by_the_reference(programs):
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((rows, 2)) for rows in (USERS, ITEMS)]
    pairs = rng.permutation(USERS * ITEMS)[:3000]
    user, item = pairs // ITEMS, pairs % ITEMS
    rating = (3 + 0.7 * (factors[0][user] * factors[1][item]).sum(1)).clip(1, 5).astype(np.float32)
    columns = [torch.from_numpy(column) for column in (user, item, rating)]
    errors = {}
    for name, step in (("kernel", None), ("reference", reference_stage)):
        torch.manual_seed(0)
        network = EmbeddingDot(USERS, ITEMS, 4, (1.0, 5.0), 3.0, margin=0.125, std=0.1)
        loader = GpuStageLoader(*columns, network=network)
        optimizer = RowwiseAdagrad([network], 0.1)
        engine = FusedGpuDescent(network, loader, optimizer, Penalty(0.001, 0.5), programs=programs, step=step)
        for epoch in range(4):
            loader.set_epoch(epoch)
            losses = [engine.train_batch(stage, 0.1) for stage in loader]
        assert torch.equal(network.user_bias.weight[:, 0], engine.states[0][:, BIAS])
        errors[name] = float(sum(losses) / len(user)) ** 0.5
    assert errors["kernel"] == pytest.approx(errors["reference"], abs=0.01)
    assert errors["kernel"] < 0.6 * rating.std()
