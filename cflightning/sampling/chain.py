"""Gibbs sampling of a dot product with biases and bags.

The model, for users u and items i, and the same with the two exchanged::

    r_ui ~ N(range(b + x_u . [q_i, 1] + c_i), 1 / alpha_u)            x_u = [p_u, b_u], z_i = [q_i, c_i]
    x_u  ~ N(m + n_u^-a sum of y_j over the items j that u has rated, Lambda^-1)      (Macau, Simm et al. 2015)
    y_j  ~ N(0, (lambda Lambda)^-1)
    m, Lambda ~ Normal-Wishart (BPMF, Salakhutdinov & Mnih 2008)      alpha_u, lambda ~ Gamma

Every set of unknowns is drawn in turn, given all others: hyper-parameters learn themselves, and the mean of the draws
answers. `range` bends, so a row is drawn from the normal that a Gauss-Newton step about the row as it is makes of its
ratings; without a sigmoid that is the exact conditional. That alpha_u is drawn for each user makes the errors
Student's: who rates at random counts less (Rendle's survey of 2019 has one alpha).
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.models.network import FoldedTables, RatingScale
from cflightning.sampling.hyper import normal_wishart
from cflightning.sampling.rows import Chunk, Rows
from cflightning.utils.torch_threads import one_thread

BAG_EXPONENT = 0.4
"""A bag is divided by n ** BAG_EXPONENT; with 0.5, as in SVD++, the chain takes longer to the same place."""
FREEDOM = 10.0
"""Degrees of freedom of the users' noise."""
SHAPE = 1e-3
"""Of the Gamma prior of lambda: next to nothing."""


def bag_pass(
    rows: np.ndarray, ends: np.ndarray, weight: np.ndarray, squares: np.ndarray, penalty: float, noise: np.ndarray,
    vectors: np.ndarray, rest: np.ndarray,
) -> None:  # fmt: skip
    """Draw the vectors of a bag, one after the other, each given all others; in place.

    In columns of unit noise: ``rest[u] = x_u - m - weight[u] * sum of vectors[j]`` is standard normal. Columns do not
    meet, so this may be called for some of them at a time.

    Args:
        rows: int32 [n], rows of `rest` that lean on each vector, one vector after the other.
        ends: int64 [vectors + 1], where each one's begin.
        weight: float32 [rows of rest].
        squares: float32 [vectors], sum of the squared weights of those rows.
        penalty: precision of a vector.
        noise: float32 [vectors, k], standard normal.
        vectors: float32 [vectors, k], drawn anew.
        rest: float32 [rows of rest, k], kept up to date.
    """
    for j in range(len(vectors)):
        near = rows[ends[j] : ends[j + 1]]
        if len(near):
            precision = squares[j] + penalty
            mean = (weight[near] @ rest[near] + squares[j] * vectors[j]) / precision
            change = mean + noise[j] / math.sqrt(precision) - vectors[j]
            vectors[j] += change
            rest[near] -= np.outer(weight[near], change)


class _Given(NamedTuple):
    """What all rows of a side are drawn from.

    Attributes:
        features: float32 [rows of the other side, k], what multiplies a row.
        offset: float32 [rows of the other side], what is added.
        root_alpha: float32 [users], root of their precision, for items; None for users, who draw their own.
        gammas: float64 [users], standard Gamma numbers for that.
        precision: float32 [k, k], Lambda.
        prior: float32 [rows, k], Lambda times the prior mean.
        noise: float32 [rows, k], standard normal.
    """

    features: Tensor
    offset: Tensor
    root_alpha: Tensor | None
    gammas: Tensor
    precision: Tensor
    prior: Tensor
    noise: Tensor


class Chain:
    """The state of a Markov chain, and its next draw.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows.
        rating: float32 [n], rating units.
        num_users: rows of a user table.
        num_items: rows of an item table.
        dim: latent factors.
        scale: of the network that answers.
        bags: `none`, `user` or `both`.
        seed: with the number of a sweep it decides all its draws.
        threads: any number gives the same bits.
        bag_pass: a faster one.
        rank: this process's number; each draws its share of the rows.
        world_size: number of processes; any number gives the same bits.
        add_up: sums a tensor over all processes, in place.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        rating: Tensor,
        *,
        num_users: int,
        num_items: int,
        dim: int,
        scale: RatingScale,
        bags: str = "both",
        seed: int = 0,
        threads: int = 1,
        bag_pass: Callable[..., None] = bag_pass,
        rank: int = 0,
        world_size: int = 1,
        add_up: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.sigmoid, self.width, self.seed = scale.sigmoid, dim + 1, seed
        self.unit = scale.high - scale.low if scale.sigmoid else 1.0
        target = (rating - scale.low) / self.unit if scale.sigmoid else rating
        self.sides = (
            Rows(user, item, target, num_users, self.width),
            Rows(item, user, target, num_items, self.width),
        )
        self.has_bag = bags in ("user", "both"), bags == "both"
        counts = [side.counts.clamp(min=1).float() for side in self.sides]
        self.bag_weights = [n**-BAG_EXPONENT * side.rated for n, side in zip(counts, self.sides, strict=True)]
        self.bag_squares = [
            torch.zeros(len(other.counts)).index_add_(0, other_rows, weight.square()[own_rows])
            for weight, other, own_rows, other_rows in zip(
                self.bag_weights, self.sides[::-1], (user.long(), item.long()), (item.long(), user.long()), strict=True
            )
        ]
        size = num_users, num_items
        self.state: dict[str, Tensor] = {"sweep": torch.zeros((), dtype=torch.int64), "noise": torch.ones(())}
        self.state["global_bias"] = torch.tensor(scale.inverse(float(rating.double().mean())), dtype=torch.float32)
        self.state["precision"] = torch.ones(num_users)
        for at in (0, 1):
            self.state[f"rows_{at}"] = torch.zeros(size[at], self.width)
            self.state[f"means_{at}"] = torch.zeros(size[at], self.width)  # of the bags alone
            self.state[f"vectors_{at}"] = torch.zeros(size[1 - at], self.width)
            self.state[f"common_{at}"] = torch.zeros(self.width)
            self.state[f"penalty_{at}"] = torch.ones(())
        self.bag_pass, self.own, self.add_up = bag_pass, slice(rank, None, world_size), add_up
        self.pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
        self.threads, self.processes = threads, world_size
        self._local = threading.local()
        self._cold(float(target.double().var()) if len(target) > 1 else 1.0)

    def _cold(self, variance: float) -> None:
        rng = np.random.default_rng([self.seed, 0])
        self.state["noise"].fill_(1 / max(variance, 1e-12))
        self.state["precision"].fill_(float(self.state["noise"]))
        for at, side in enumerate(self.sides):
            rows = self.state[f"rows_{at}"]
            rows[:, :-1] = 0.3 * rows.shape[1] ** -0.5 * _normal(rng, (len(rows), rows.shape[1] - 1))
            rows *= side.rated[:, None]

    def start(self, tables: FoldedTables) -> None:
        """Begin where another training ended.

        Args:
            tables: of the same users, items and scale, and of at most this dim; of fewer, the rest becomes zero.
        """
        self.state["global_bias"].copy_(tables.global_bias)
        sides = (tables.user_vectors, tables.user_bias), (tables.item_vectors, tables.item_bias)
        for at, (vectors, bias) in enumerate(sides):
            rows = self.state[f"rows_{at}"].zero_()
            rows[:, : vectors.shape[1]], rows[:, -1] = vectors, bias
            rows *= self.sides[at].rated[:, None]

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the state of a checkpoint."""
        for name, value in state.items():
            self.state[name].copy_(value)

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()

    def sweep(self) -> float:
        """Draw every unknown once.

        Returns:
            Sum of the squared errors of all ratings before, squared rating units.
        """
        with one_thread():  # this thread's own part is small
            return self._sweep()

    def _sweep(self) -> float:
        self.state["sweep"] += 1
        rng = np.random.default_rng([self.seed, int(self.state["sweep"])])
        errors = torch.zeros(len(self.state["precision"]), dtype=torch.float64)
        for at in (0, 1):
            precision = self._draw_prior(at, rng)
            self._draw_rows(at, precision, errors, rng)
        total = float(errors.sum())
        self.state["noise"].fill_(int(self.sides[0].counts.sum()) / max(total, 1e-12))
        return total * self.unit**2

    def _draw_prior(self, at: int, rng: np.random.Generator) -> Tensor:
        """Draw what the rows of a side have in common: Lambda (float64 [k, k], returned), m, y and lambda."""
        side, other, state = self.sides[at], self.sides[1 - at], self.state
        rows, means, common = state[f"rows_{at}"], state[f"means_{at}"], state[f"common_{at}"]
        vectors, penalty = state[f"vectors_{at}"], state[f"penalty_{at}"]
        scatter, more = torch.zeros(self.width, self.width, dtype=torch.float64), 0
        if self.has_bag[at]:
            scatter, more = float(penalty) * vectors.double().mT @ vectors.double(), int(other.rated.sum())
        drawn, precision = normal_wishart((rows - means)[side.rated], scatter, more, rng)
        common.copy_(drawn)
        if self.has_bag[at]:
            root = torch.linalg.cholesky(precision).float()  # x root has unit noise
            rest, white = (rows - common - means) @ root, vectors @ root
            noise = _normal(rng, tuple(vectors.shape)).numpy()
            sides = other.other.numpy(), other.ends.numpy(), self.bag_weights[at].numpy(), self.bag_squares[at].numpy()
            cuts = np.linspace(0, self.width, self.threads + 1).astype(int)

            def draw(low: int, high: int) -> None:
                columns = [np.ascontiguousarray(part[:, low:high]) for part in (noise, white.numpy(), rest.numpy())]
                self.bag_pass(*sides, np.float32(penalty), *columns)
                for part, new in zip((white, rest), columns[1:], strict=True):
                    part.numpy()[:, low:high] = new

            _all_done([self.pool.submit(draw, *cut) for cut in itertools.pairwise(cuts) if cut[0] < cut[1]])
            spread = float(white.double().square().sum())
            penalty.fill_(rng.gamma(SHAPE + more * self.width / 2) / (SHAPE + spread / 2))
            vectors.copy_(torch.linalg.solve_triangular(root, white, upper=False, left=False))
            away = torch.linalg.solve_triangular(root, rest, upper=False, left=False)
            means.copy_((rows - common - away) * side.rated[:, None])
        return precision

    def _draw_rows(self, at: int, precision: Tensor, errors: Tensor, rng: np.random.Generator) -> None:
        """Draw all rows of a side, and, with the users, their noise; their squared errors before go into `errors`."""
        side, other = self.sides[at], self.state[f"rows_{1 - at}"]
        rows = self.state[f"rows_{at}"]
        shared = precision.float()
        prior = (self.state[f"common_{at}"] + self.state[f"means_{at}"]) @ shared
        features = other.clone()
        features[:, -1] = self.sides[1 - at].rated
        given = _Given(
            features,
            offset=other[:, -1] + self.state["global_bias"],
            root_alpha=self.state["precision"].sqrt() if at else None,
            gammas=torch.from_numpy(rng.standard_gamma(FREEDOM / 2 + self.sides[0].counts.numpy() / 2)),
            precision=shared,
            prior=prior,
            noise=_normal(rng, tuple(rows.shape)),
        )
        own = side.chunks[self.own]
        _all_done([self.pool.submit(self._draw_chunk, rows, chunk, given, errors) for chunk in own])
        if self.add_up is not None:  # every row has one owner, and the others add zeros: the sum is exact
            parts = [rows] if at else [rows, errors, self.state["precision"]]
            mine = torch.zeros(len(rows), dtype=torch.bool)
            for chunk in own:
                mine[chunk.rows] = True
            for part in parts:
                part[~mine] = 0
                self.add_up(part)

    def _draw_chunk(self, table: Tensor, chunk: Chunk, given: _Given, errors: Tensor) -> None:
        rows, other, target = chunk
        shape = *target.shape, self.width
        gathered = self._buffer(other.numel() * self.width)
        torch.index_select(given.features, 0, other, out=gathered.view(-1, self.width))
        near = gathered.view(shape)
        fitted = torch.bmm(near, table[rows, :, None])[..., 0]
        logit = fitted + given.offset[other].view_as(fitted)
        if self.sigmoid:
            score = logit.sigmoid_()
            slope = score * (1 - score)
            error = target - score
        else:
            slope, error = torch.ones_like(logit), target - logit
        if given.root_alpha is None:
            squared = (error.square() * (other > 0).view_as(error)).sum(1, dtype=torch.float64)
            errors[rows] = squared
            rate = FREEDOM / 2 / float(self.state["noise"]) + squared / 2
            self.state["precision"][rows] = (given.gammas[rows] / rate).float()
            root_alpha = self.state["precision"][rows].sqrt()[:, None]
        else:
            root_alpha = given.root_alpha[other].view_as(error)
        # In columns of unit noise: slope * x near = slope * fitted + error. Padding is zero in `near`.
        root = root_alpha * slope
        near.mul_(root[..., None])
        seen = root * fitted + root_alpha * error
        by_row = torch.baddbmm(given.precision, near.mT, near)
        pull = torch.bmm(seen[:, None], near)[:, 0] + given.prior[rows]
        lower = torch.linalg.cholesky_ex(by_row).L
        half = torch.linalg.solve_triangular(lower, pull[..., None], upper=False) + given.noise[rows, :, None]
        table[rows] = torch.linalg.solve_triangular(lower.mT, half, upper=True)[..., 0]

    def _buffer(self, size: int) -> Tensor:
        """Memory of this thread, the same every time: fresh pages cost more than the arithmetic."""
        held: Tensor | None = getattr(self._local, "buffer", None)
        if held is None or held.numel() < size:
            held = self._local.buffer = torch.empty(size)
        return held[:size]

    def tables(self) -> FoldedTables:
        """The model as drawn last, as tables whose zero rows answer for the unknown: by the rows' common mean."""
        centred = []
        for at, side in enumerate(self.sides):
            centred.append((self.state[f"rows_{at}"] - self.state[f"common_{at}"]) * side.rated[:, None])
        users, items = centred
        of_users, of_items = self.state["common_0"], self.state["common_1"]
        start = self.state["global_bias"] + of_users[:-1] @ of_items[:-1] + of_users[-1] + of_items[-1]
        return FoldedTables(
            users[:, :-1],
            items[:, :-1],
            users[:, -1] + users[:, :-1] @ of_items[:-1],
            items[:, -1] + items[:, :-1] @ of_users[:-1],
            start,
        )


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers: float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _all_done(jobs: Sequence[Any]) -> None:
    for job in jobs:
        job.result()
