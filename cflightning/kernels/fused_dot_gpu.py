"""The fused training step of `EmbeddingDot` on a CUDA GPU: gather, dot product, error, gradient and update in a kernel.

**Rule.** That of `fused_dot`, with the same state tables, so that checkpoints are the same. The order of the updates
differs: a program computes the gradients of a few ratings from the current tables and adds its changes with relaxed
atomics, while thousands of ratings are in flight. This is batch-Hogwild! of cuMF_SGD (Xie, Tan, Fong & Liang 2017,
HPDC) with atomic additions instead of stores, so no change is lost. The order of the sums is not deterministic: two
runs agree to rounding, not bit for bit as on the CPU. Ratings in flight are limited, see `programs`.

**The global bias** is one number that every program reads from L2 and adds to after each unit of ratings. On the CPU
each cell of a stage updates a copy by its own ratings and the copies are averaged; one bias that sees all ratings moves
as fast with the learning rate divided by the number of cells, and that is what the engine passes.

**Order.** The columns are shuffled once, when they are loaded; an epoch permutes *blocks* of `GPU_BLOCK` consecutive
ratings, as the CPU step does. Each program walks through its units of a block with a stride, and loads the columns of
the next unit before it works on the current one.

docs/benchmarks.md has the estimates behind these choices.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cflightning.kernels.adagrad import BIAS, GPU_BLOCK, L2, L2_BIAS, STATE_WIDTH, STEP, V_BIAS, V_FACTORS

MAX_IN_FLIGHT_OF_ONE_INDEX = 32
"""Maximum number of ratings in flight of the most popular user or item."""
MIN_RATINGS_PER_IN_FLIGHT = 80
"""Minimum number of ratings of an epoch for each rating in flight."""
WARPS_PER_SM = 10
"""Warps per streaming multiprocessor: its 65,536 registers hold 11 warps of the step at dim 64."""

# The kernel reads and updates the first four columns of a state as one vector of 16 bytes.
assert (BIAS, V_FACTORS, V_BIAS, STEP) == (0, 1, 2, 3)
_WIDTH = tl.constexpr(STATE_WIDTH)
_L2 = tl.constexpr(L2)
_L2_BIAS = tl.constexpr(L2_BIAS)


@triton.jit
def _columns(user, item, target, order, unit, units, n, BLOCK: tl.constexpr, R: tl.constexpr):
    """Users, items and targets of a unit, an R-th part of a block, and whether they exist: [R] each.

    The columns are read once per epoch, so they are the first to be evicted from the cache.
    """
    parts: tl.constexpr = BLOCK // R
    block = tl.load(order + unit // parts, mask=unit < units, other=0).to(tl.int64)
    at = block * BLOCK + (unit % parts) * R + tl.arange(0, R)
    live = at < tl.where(unit < units, n, 0)
    a = tl.load(user + at, mask=live, other=0, eviction_policy="evict_first")
    b = tl.load(item + at, mask=live, other=0, eviction_policy="evict_first")
    y = tl.load(target + at, mask=live, other=0.0, eviction_policy="evict_first")
    return a, b, y, live


@triton.jit
def _load_state(state, index, live, R: tl.constexpr):
    """Bias, both accumulators, step scale and both penalties of some indices: int64 [R] -> float32 [R] each."""
    four = tl.arange(0, 4)
    # .cg: the additions of other SMs are in L2; a line in this SM's L1 would be stale.
    first = tl.load(
        state + index[:, None] * _WIDTH + four[None, :], mask=live[:, None], other=0.0, cache_modifier=".cg"
    )
    even, odd = tl.split(tl.reshape(first, (R, 2, 2)))
    bias, v_bias = tl.split(even)
    v_factors, step = tl.split(odd)
    l2 = tl.load(state + index * _WIDTH + _L2, mask=live, other=0.0)
    l2_bias = tl.load(state + index * _WIDTH + _L2_BIAS, mask=live, other=0.0)
    return bias, v_factors, v_bias, step, l2, l2_bias


@triton.jit
def _add_to_state(state, index, live, bias, v_factors, v_bias, R: tl.constexpr):
    """Add to biases and accumulators, and 0 to the step scale; one 16-byte atomic per index on Hopper."""
    four = tl.arange(0, 4)
    change = tl.join(tl.join(bias, v_bias), tl.join(v_factors, tl.zeros_like(v_factors)))
    tl.atomic_add(
        state + index[:, None] * _WIDTH + four[None, :], tl.reshape(change, (R, 4)), mask=live[:, None], sem="relaxed"
    )


# Stages differ by a block, which must not recompile the kernel. (It is compiled twice: an order may be unaligned.)
@triton.jit(do_not_specialize=["n", "units"])
def train_units(
    user, item, target, order, users, items, user_state, item_state, bias, partials, n, units,
    gradient_factor, rate_factors, rate_biases, rate_global, eps, inv_dim, DIM: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Train on units of R ratings; partials: float64 [programs], output, sums of squared errors."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    k = tl.arange(0, WIDTH)
    squares = tl.zeros((R,), tl.float64)
    a, b, y, live = _columns(user, item, target, order, program, units, n, BLOCK, R)
    for unit in range(program, units, programs):
        next_a, next_b, next_y, next_live = _columns(user, item, target, order, unit + programs, units, n, BLOCK, R)
        # 1. Gather. Offsets have 64 bits: index * dim may exceed 2^31.
        at_user, at_item = a.to(tl.int64), b.to(tl.int64)
        cells = live[:, None]
        if WIDTH != DIM:
            cells = cells & (k < DIM)[None, :]
        p_at = users + at_user[:, None] * DIM + k[None, :]
        q_at = items + at_item[:, None] * DIM + k[None, :]
        p = tl.load(p_at, mask=cells, other=0.0, cache_modifier=".cg")
        q = tl.load(q_at, mask=cells, other=0.0, cache_modifier=".cg")
        bias_u, v_factors_u, v_bias_u, step_u, l2_u, l2_bias_u = _load_state(user_state, at_user, live, R)
        bias_i, v_factors_i, v_bias_i, step_i, l2_i, l2_bias_i = _load_state(item_state, at_item, live, R)
        # 2. Score, error, gradient and step sizes. volatile: every unit reads the bias again, from L2.
        logit = tl.load(bias, volatile=True) + bias_u + bias_i + tl.sum(p * q, 1)
        s = 1.0 / (1.0 + tl.exp(-logit))
        error = tl.where(live, s - y, 0.0)
        squares += (error * error).to(tl.float64)
        g = gradient_factor * error * s * (1.0 - s)
        g2 = g * g
        added_u, added_i = g2 * tl.sum(q * q, 1) * inv_dim, g2 * tl.sum(p * p, 1) * inv_dim
        rate_u = rate_factors * step_u / (tl.sqrt(v_factors_u + added_u) + eps)
        rate_i = rate_factors * step_i / (tl.sqrt(v_factors_i + added_i) + eps)
        t_u = rate_biases * step_u / (tl.sqrt(v_bias_u + g2) + eps)
        t_i = rate_biases * step_i / (tl.sqrt(v_bias_i + g2) + eps)
        bias_change_u = t_u * (g + l2_bias_u * bias_u) / (1.0 + t_u * l2_bias_u)
        bias_change_i = t_i * (g + l2_bias_i * bias_i) / (1.0 + t_i * l2_bias_i)
        # 3. Update.
        tl.atomic_add(p_at, -((rate_u * g)[:, None] * q + (rate_u * l2_u)[:, None] * p), mask=cells, sem="relaxed")
        tl.atomic_add(q_at, -((rate_i * g)[:, None] * p + (rate_i * l2_i)[:, None] * q), mask=cells, sem="relaxed")
        _add_to_state(user_state, at_user, live, -bias_change_u, added_u, g2, R)
        _add_to_state(item_state, at_item, live, -bias_change_i, added_i, g2, R)
        tl.atomic_add(bias, -rate_global * tl.sum(g, 0), sem="relaxed")
        a, b, y, live = next_a, next_b, next_y, next_live
    tl.store(partials + program, tl.sum(squares, 0))


def shape(dim: int) -> tuple[int, int]:
    """Return the ratings of a unit and the warps of a program: the vectors of both sides fill 32 registers per thread.

    Twice that spills. One warp suffices as long as 8 ratings fit it: threads of one warp need no barrier to share the
    scalars of a rating. Vectors that are not a multiple of 16 bytes are loaded in pairs and need twice the registers
    for addresses.
    """
    width = triton.next_power_of_2(dim)
    warps = 1 if width <= 64 else 2 if width <= 256 else 4
    return max(1, min(GPU_BLOCK, 512 * warps // width)), warps * (2 if dim % 4 and width > 16 else 1)


def programs(total: int, max_count: int, processors: int, ratings: int, warps: int) -> int:
    """Return the number of programs of a grid: enough to hide latency, few enough to bound staleness.

    Args:
        total: Ratings of an epoch.
        max_count: Ratings of the most popular user or item.
        processors: Streaming multiprocessors of the GPU.
        ratings: Ratings of a unit.
        warps: Warps of a program.
    """
    in_flight = min(MAX_IN_FLIGHT_OF_ONE_INDEX * total // max(max_count, 1), total // MIN_RATINGS_PER_IN_FLIGHT)
    return max(1, min(WARPS_PER_SM * processors // warps, in_flight // ratings))


def train_stage(
    user: Tensor, item: Tensor, target: Tensor, order: Tensor, users: Tensor, items: Tensor, user_state: Tensor,
    item_state: Tensor, bias: Tensor, gradient_factor: float, rate_factors: float, rate_biases: float,
    rate_global: float, eps: float, *, programs: int, ratings: int | None = None, warps: int | None = None,
) -> Tensor:  # fmt: skip
    """Train on some blocks; the tables are updated in place. Returns without waiting for the device.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        target: float32 [n], ratings in units of the widened range.
        order: int32 [blocks], numbers of blocks of `GPU_BLOCK` ratings; the last block of the columns may be ragged.
        users: float32 [num_users, dim], contiguous.
        items: float32 [num_items, dim], contiguous.
        user_state: float32 [num_users, STATE_WIDTH], contiguous, see `adagrad`.
        item_state: float32 [num_items, STATE_WIDTH], contiguous.
        bias: float32 [1], global bias.
        gradient_factor: Factor of the gradient, 2 (1 + 2 m)^2.
        rate_factors: Learning rate of factors.
        rate_biases: Learning rate of biases.
        rate_global: Learning rate of the global bias, per rating.
        eps: Number added to the root of an accumulator.
        programs: Maximum number of programs; each processes one unit of ratings after the other.
        ratings: Ratings of a unit, a power of two up to `GPU_BLOCK`; None for that of `shape`.
        warps: Warps of a program; None for that of `shape`.

    Returns:
        Sum of squared errors, in squared units of the widened range: float64 [].
    """
    dim = users.shape[1]
    default_ratings, default_warps = shape(dim)
    ratings, warps = ratings or default_ratings, warps or default_warps
    units = len(order) * (GPU_BLOCK // ratings)
    grid = max(1, min(programs, units))
    partials = torch.empty(grid, dtype=torch.float64, device=users.device)
    # As a dict, since the launcher's own options (num_warps) are not in the kernel's signature.
    options = {"DIM": dim, "WIDTH": triton.next_power_of_2(dim), "BLOCK": GPU_BLOCK, "R": ratings}
    options |= {"num_warps": warps, "enable_fp_fusion": True}
    with torch.cuda.device_of(users):
        train_units[(grid,)](
            user, item, target, order, users, items, user_state, item_state, bias, partials, len(user), units,
            gradient_factor, rate_factors, rate_biases, rate_global, eps, 1 / dim, **options,
        )  # fmt: skip
    return partials.sum()
