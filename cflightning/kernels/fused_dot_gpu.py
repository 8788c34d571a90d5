"""The fused training step of `EmbeddingDot` on a CUDA GPU: gather, dot, error, gradient and update in one kernel.

**Rule.** That of `fused_dot`, on the same side tables, so that checkpoints are the same. What differs is who updates
when: a program takes the gradients of a few ratings from the tables as they are and adds its changes with relaxed
atomics, and thousands of ratings are in flight at once. That is batch-Hogwild! of cuMF_SGD (Xie, Tan, Fong & Liang
2017, HPDC) with additions where cuMF_SGD stores: no change is lost. The order of the sums is open, so two runs agree
to rounding, not bit for bit as on the CPU.

**The global bias** is one number that every program reads at L2 and adds to after each handful of ratings. (Summed up
and applied once a stage it would blow up: 3 million gradients of one stale value.) On the CPU each of `GRID` cells
moves a copy by its own ratings and the copies are averaged; one bias that sees all ratings moves as fast at 1 / `GRID`
of the rate, which is what the engine passes.

**Staleness.** With T ratings in flight, a row with a share s of all ratings has sT changes under way that do not see
each other. Test RMSE with the gradients of T ratings taken before any of them updates, which is the worst case of T in
flight (torch twin, dim 64, 10 epochs, random 90/10; the largest s is .0034 and .0075):

    T                 16   1,024   4,096  16,384  32,768  65,536
    MovieLens 1M            .8386   .8386   .8385   .8384   .8384
    MovieLens 100K .8866    .8868   .8876   .8897

One seed each; the engine on its own layout, with about as much in flight as `programs` allows (8,448 and 1,088), ends
at .8387 and .8860, the CPU's compiled step on the same splits at .8387 and .8867, means of three seeds. So 1 / `SHARE`
of an epoch's ratings in flight are free, and hundreds of changes under way to one row did no harm by themselves; sT is
bounded by `CONCURRENT` all the same, for tables with a row that dominates. (Returning atomics that let each change see
all earlier squares gave .8386 throughout: not worth their round trip.)

**Programs in flight** are limited accordingly: the grid is no larger than that, each program walks through its units
with a stride and asks for the columns of the next before it works on this one. On a MovieLens 25M at dim 64 that
leaves some 9,800 ratings in flight; at 4 µs a unit (an estimate: 1,100 instructions of one warp, a read of DRAM,
atomics that nobody waits for) they allow 2.4 billion ratings a second.

**Bytes** a rating (`bytes_per_rating`): 12 of columns, 1/16 of order, rows and side rows of both sides read and
written, ``2 * 2 * (4 dim + 32)``: 1,164 at dim 64, so 4.8 TB/s allow 4.1 billion ratings a second, 25 million in 6 ms.
Items (17 MB at 59,000 rows of dim 64) fit a 50 MB L2 beside some of the users, so DRAM moves less than that.

**Order.** Columns are shuffled once, when they are loaded; an epoch permutes *blocks* of `GPU_BLOCK` consecutive
ratings, as the CPU step does. Bytes a rating and epoch: a random order of ratings read through an index takes 8 for
the index and 3 * 32 for a sector of each column, 104, one more dependent load in every program, and a sort of n keys
(8 passes over 16 bytes, read and written: 256); gathering the columns by it takes 8 + 3 * 36 + 12 = 128 and the sort;
blocks in a random order 12 + 4 / 64 with full sectors, nothing to copy, and n / 64 keys to sort.

**Alternatives.** FBGEMM's table-batched embeddings (under TorchRec) fuse the backward of the lookup with row-wise
Adagrad, not the dot product, range and error between them. In units of dim bytes a rating, both sides: rows read and
written gathered 16, read for the dot product 8, read again for its backward 8 and gradients written 8, read 8, rows
updated 16: 64, where this kernel moves 16; and a sort of the ids and a dozen launches a batch. It sums all gradients
of a row in a batch before one update, which the table above shows is not needed here.

Unmeasured: everything about speed on a GPU. Results are tested through Triton's interpreter against `twin_gpu`, and
compiling for Hopper gives 16-byte atomics without return value, loads past L1 and, at dim 64, no spills (Triton 3.5 to
3.9).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cflightning.kernels.adagrad import BIAS, GPU_BLOCK, L2, L2_BIAS, STATE_WIDTH, STEP, V_BIAS, V_FACTORS

CONCURRENT = 32
"""Ratings of the most popular row that may be in flight at once."""
SHARE = 80
"""Ratings in flight are at most an epoch's divided by this."""
WARPS_PER_SM = 10
"""More would wait for registers: 65,536 of an SM hold 11 warps of the step at dim 64."""

# The kernel reads and updates a side row's first four columns as one vector of 16 bytes.
assert (BIAS, V_FACTORS, V_BIAS, STEP) == (0, 1, 2, 3)
_SIDE = tl.constexpr(STATE_WIDTH)
_L2 = tl.constexpr(L2)
_L2_BIAS = tl.constexpr(L2_BIAS)


@triton.jit
def _columns(user, item, target, order, unit, units, n, BLOCK: tl.constexpr, R: tl.constexpr):
    """Ratings of a unit, the R-th parts of the blocks in order: int32 [R] twice, float32 [R], which there are [R].

    Read once an epoch, so the tables should rather stay in the cache.
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
def _side_row(side, row, live, R: tl.constexpr):
    """Bias, both accumulators, h and both penalties of rows: int64 [R] -> float32 [R] each."""
    four = tl.arange(0, 4)
    # .cg: what other SMs have added is at L2; a line in this SM's L1 would stay as it was.
    first = tl.load(side + row[:, None] * _SIDE + four[None, :], mask=live[:, None], other=0.0, cache_modifier=".cg")
    even, odd = tl.split(tl.reshape(first, (R, 2, 2)))
    bias, v_bias = tl.split(even)
    v_factors, step = tl.split(odd)
    l2 = tl.load(side + row * _SIDE + _L2, mask=live, other=0.0)
    l2_bias = tl.load(side + row * _SIDE + _L2_BIAS, mask=live, other=0.0)
    return bias, v_factors, v_bias, step, l2, l2_bias


@triton.jit
def _add_to_side_row(side, row, live, bias, v_factors, v_bias, R: tl.constexpr):
    """Add to bias and accumulators, and 0 to h: int64 [R], float32 [R] each; one 16-byte atomic a row on Hopper."""
    four = tl.arange(0, 4)
    change = tl.join(tl.join(bias, v_bias), tl.join(v_factors, tl.zeros_like(v_factors)))
    tl.atomic_add(
        side + row[:, None] * _SIDE + four[None, :], tl.reshape(change, (R, 4)), mask=live[:, None], sem="relaxed"
    )


# Stages differ by a block: not compiled again for that (twice in all: the order of a stage may start off 16 bytes).
@triton.jit(do_not_specialize=["n", "units"])
def _stage(
    user, item, target, order, users, items, user_side, item_side, bias, partials, n, units,
    c, lr, lrb, lrg, eps, inv_dim, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Units of R ratings; partials: float64 [programs], sums of squared errors."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    k = tl.arange(0, WIDTH)
    squares = tl.zeros((R,), tl.float64)
    a, b, y, live = _columns(user, item, target, order, program, units, n, BLOCK, R)
    for unit in range(program, units, programs):
        next_a, next_b, next_y, next_live = _columns(user, item, target, order, unit + programs, units, n, BLOCK, R)
        # 1. Gather. Offsets in 64 bits: rows * dim may pass 2^31.
        at_user, at_item = a.to(tl.int64), b.to(tl.int64)
        cells = live[:, None]
        if WIDTH != DIM:
            cells = cells & (k < DIM)[None, :]
        p_at = users + at_user[:, None] * DIM + k[None, :]
        q_at = items + at_item[:, None] * DIM + k[None, :]
        p = tl.load(p_at, mask=cells, other=0.0, cache_modifier=".cg")
        q = tl.load(q_at, mask=cells, other=0.0, cache_modifier=".cg")
        bu, vu, wu, hu, cu, du = _side_row(user_side, at_user, live, R)
        bi, vi, wi, hi, ci, di = _side_row(item_side, at_item, live, R)
        # 2. Link, error, gradient and steps. volatile: read anew, and at L2, for every unit.
        logit = tl.load(bias, volatile=True) + bu + bi + tl.sum(p * q, 1)
        s = 1.0 / (1.0 + tl.exp(-logit))
        error = tl.where(live, s - y, 0.0)
        squares += (error * error).to(tl.float64)
        g = c * error * s * (1.0 - s)
        g2 = g * g
        dvu, dvi = g2 * tl.sum(q * q, 1) * inv_dim, g2 * tl.sum(p * p, 1) * inv_dim
        fu = lr * hu / (tl.sqrt(vu + dvu) + eps)
        fi = lr * hi / (tl.sqrt(vi + dvi) + eps)
        tu = lrb * hu / (tl.sqrt(wu + g2) + eps)
        ti = lrb * hi / (tl.sqrt(wi + g2) + eps)
        bu, bi = tu * (g + du * bu) / (1.0 + tu * du), ti * (g + di * bi) / (1.0 + ti * di)  # from here on: changes
        # 3. Update.
        tl.atomic_add(p_at, -((fu * g)[:, None] * q + (fu * cu)[:, None] * p), mask=cells, sem="relaxed")
        tl.atomic_add(q_at, -((fi * g)[:, None] * p + (fi * ci)[:, None] * q), mask=cells, sem="relaxed")
        _add_to_side_row(user_side, at_user, live, -bu, dvu, g2, R)
        _add_to_side_row(item_side, at_item, live, -bi, dvi, g2, R)
        tl.atomic_add(bias, -lrg * tl.sum(g, 0), sem="relaxed")
        a, b, y, live = next_a, next_b, next_y, next_live
    tl.store(partials + program, tl.sum(squares, 0))


def shape(dim: int) -> tuple[int, int]:
    """Ratings a program takes at once, and its warps: rows of both sides fill 32 registers of every thread.

    Twice that spills. One warp as long as 8 ratings fit it: threads of one warp need no barrier to share the scalars
    of a rating. Rows that are no multiple of 16 bytes take vectors of two and so twice the registers for addresses.
    """
    width = triton.next_power_of_2(dim)
    warps = 1 if width <= 64 else 2 if width <= 256 else 4
    return max(1, min(GPU_BLOCK, 512 * warps // width)), warps * (2 if dim % 4 and width > 16 else 1)


def programs(total: int, most: int, processors: int, ratings: int, warps: int) -> int:
    """Programs of a grid: enough to cover latency, few enough that nothing has too many changes in flight.

    Args:
        total: ratings of an epoch.
        most: ratings of the most popular row, user or item.
        processors: streaming multiprocessors of the GPU.
        ratings: a program takes at once.
        warps: of a program.
    """
    in_flight = min(CONCURRENT * total // max(most, 1), total // SHARE)
    return max(1, min(WARPS_PER_SM * processors // warps, in_flight // ratings))


def train_stage(
    user: Tensor, item: Tensor, target: Tensor, order: Tensor, users: Tensor, items: Tensor, user_side: Tensor,
    item_side: Tensor, bias: Tensor, c: float, lr: float, lrb: float, lrg: float, eps: float, *,
    programs: int, ratings: int | None = None, warps: int | None = None,
) -> Tensor:  # fmt: skip
    """Train on some blocks; tables are updated in place. Returns without waiting for the device.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows.
        target: float32 [n], ratings in units of the widened range.
        order: int32 [blocks], numbers of blocks of `GPU_BLOCK` ratings; the last block of the columns may be ragged.
        users: float32 [num_users, dim], contiguous.
        items: float32 [num_items, dim], contiguous.
        user_side: float32 [num_users, STATE_WIDTH], contiguous.
        item_side: float32 [num_items, STATE_WIDTH], contiguous.
        bias: float32 [1], global bias.
        c: factor of the gradient, 2 (1 + 2 m)^2.
        lr: learning rate of factors.
        lrb: of biases.
        lrg: of the global bias, a rating.
        eps: added to the root of an accumulator.
        programs: programs at most; each takes ratings one handful after the other.
        ratings: a program takes at once, a power of two up to `GPU_BLOCK`; None for `shape`'s.
        warps: of a program; None for `shape`'s.

    Returns:
        Sum of squared errors, in squared units of the widened range: float64 [].
    """
    dim = users.shape[1]
    usual = shape(dim)
    ratings, warps = ratings or usual[0], warps or usual[1]
    units = len(order) * (GPU_BLOCK // ratings)
    grid = max(1, min(programs, units))
    partials = torch.empty(grid, dtype=torch.float64, device=users.device)
    # Keyword arguments as Any: the launcher's own (num_warps) are not in the kernel's signature.
    options: dict[str, Any] = {"DIM": dim, "WIDTH": triton.next_power_of_2(dim), "BLOCK": GPU_BLOCK, "R": ratings}
    options |= {"num_warps": warps, "enable_fp_fusion": True}
    with torch.cuda.device_of(users):
        _stage[(grid,)](
            user, item, target, order, users, items, user_side, item_side, bias, partials, len(user), units,
            c, lr, lrb, lrg, eps, 1 / dim, **options,
        )  # fmt: skip
    return partials.sum()


def bytes_per_rating(dim: int) -> float:
    """Bytes moved a rating: its columns and order, both rows and side rows read and written.

    Divided by a bandwidth, the floor of a rating's time where no cache helps.
    """
    return 12 + 4 / GPU_BLOCK + 2 * 2 * (4 * dim + 4 * STATE_WIDTH)
