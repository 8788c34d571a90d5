"""Gibbs sampling of a dot product with biases and SVD++ terms.

The model for users u and items i, and the same with the two exchanged::

    r_ui ~ N(range(b + x_u . [q_i, 1] + c_i), 1 / alpha_u)            x_u = [p_u, b_u], z_i = [q_i, c_i]
    x_u  ~ N(m + n_u^-a sum of y_j over the items j that u has rated, Lambda^-1)      (Macau, Simm et al. 2015)
    y_j  ~ N(0, (lambda Lambda)^-1)
    m, Lambda ~ Normal-Wishart (BPMF, Salakhutdinov & Mnih 2008)      alpha_u, lambda ~ Gamma

Each block of unknowns is drawn in turn, given all others, so the hyper-parameters are learned too, and the average of
the draws predicts. `range` is the scaled sigmoid, so a vector is drawn from the normal distribution of a Gauss-Newton
step at its current value; without a sigmoid this is the exact conditional. A noise precision alpha_u per user makes the
errors Student-t distributed: users who rate erratically have a lower weight (Rendle, Zhang & Koren 2019 use one alpha).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from cflightning.models.network import DotProductTables, RatingScale
from cflightning.sampling.conditional import Conditional, draw_chunk
from cflightning.sampling.normal_wishart import normal_wishart
from cflightning.sampling.padded_rows import PaddedRows
from cflightning.sampling.svdpp import draw_svdpp_vectors
from cflightning.utils.interactions import Interactions
from cflightning.utils.torch_threads import one_thread

SVDPP_EXPONENT = 0.4
"""Exponent a of n in the SVD++ term; with 0.5, as in SVD++, the chain converges more slowly to the same result."""
DEGREES_OF_FREEDOM = 10.0
"""Degrees of freedom of the prior of the users' noise precisions."""
SHAPE = 1e-3
"""Shape and rate of the Gamma prior of lambda: almost uninformative."""


class Chain:
    """A Markov chain.

    Side 0 are the users, side 1 the items.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        rating: float32 [n], rating units.
        num_users: Size of the user table.
        num_items: Size of the item table.
        dim: Latent factors.
        scale: Scale of the served network.
        svdpp: Sides with SVD++ terms: `none`, `user` or `both`.
        seed: Seed of all draws, with the number of the sweep.
        threads: Number of threads; the result does not depend on it, bit for bit.
        draw_vectors: Implementation of `draw_svdpp_vectors`.
        rank: Rank of this process; each draws a share of the vectors.
        world_size: Number of processes; the result does not depend on it, bit for bit.
        all_reduce: Sums a tensor over all processes, in place.

    Attributes:
        state: Everything that a checkpoint stores, by name.
        width: Length of a vector with its bias.
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
        svdpp: str = "both",
        seed: int = 0,
        threads: int = 1,
        draw_vectors: Callable[..., None] = draw_svdpp_vectors,
        rank: int = 0,
        world_size: int = 1,
        all_reduce: Callable[[Tensor], object] | None = None,
    ) -> None:
        self.sigmoid, self.width, self.seed = scale.sigmoid, dim + 1, seed
        self.unit = scale.high - scale.low if scale.sigmoid else 1.0
        target = (rating - scale.low) / self.unit if scale.sigmoid else rating
        ratings = Interactions.from_pairs(user, item, num_users, num_items, target)
        self.sides = PaddedRows(ratings.by_user, self.width), PaddedRows(ratings.by_item, self.width)
        self.has_svdpp = svdpp in ("user", "both"), svdpp == "both"
        counts = [side.counts.clamp(min=1).float() for side in self.sides]
        self.svdpp_weights = [n**-SVDPP_EXPONENT * side.rated for n, side in zip(counts, self.sides, strict=True)]
        self.svdpp_squares = [
            torch.zeros(len(other.counts)).index_add_(0, other_index, weight.square()[own_index])
            for weight, other, own_index, other_index in zip(
                self.svdpp_weights,
                self.sides[::-1],
                (user.long(), item.long()),
                (item.long(), user.long()),
                strict=True,
            )
        ]
        size = num_users, num_items
        self.state: dict[str, Tensor] = {"sweep": torch.zeros((), dtype=torch.int64), "noise": torch.ones(())}
        self.state["global_bias"] = torch.tensor(scale.inverse(float(rating.double().mean())), dtype=torch.float32)
        self.state["precision"] = torch.ones(num_users)
        for at in (0, 1):
            self.state[f"factors_{at}"] = torch.zeros(size[at], self.width)
            self.state[f"svdpp_means_{at}"] = torch.zeros(size[at], self.width)  # SVD++ terms
            self.state[f"svdpp_vectors_{at}"] = torch.zeros(size[1 - at], self.width)
            self.state[f"prior_mean_{at}"] = torch.zeros(self.width)
            self.state[f"penalty_{at}"] = torch.ones(())
        self.draw_vectors, self.all_reduce = draw_vectors, all_reduce
        self.own_chunks = slice(rank, None, world_size)
        self.pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
        self.threads, self.processes = threads, world_size
        self._init_state(float(target.double().var()) if len(target) > 1 else 1.0)

    def _init_state(self, variance: float) -> None:
        rng = np.random.default_rng([self.seed, 0])
        self.state["noise"].fill_(1 / max(variance, 1e-12))
        self.state["precision"].fill_(float(self.state["noise"]))
        for at, side in enumerate(self.sides):
            factors = self.state[f"factors_{at}"]
            factors[:, :-1] = 0.3 * factors.shape[1] ** -0.5 * _normal(rng, (len(factors), factors.shape[1] - 1))
            factors *= side.rated[:, None]

    def start(self, tables: DotProductTables) -> None:
        """Set the state to a trained model.

        Args:
            tables: Tables of the same users, items and scale, of at most this dim; factors that they lack become zero.
        """
        self.state["global_bias"].copy_(tables.global_bias)
        sides = (tables.user_vectors, tables.user_bias), (tables.item_vectors, tables.item_bias)
        for at, (vectors, bias) in enumerate(sides):
            factors = self.state[f"factors_{at}"].zero_()
            factors[:, : vectors.shape[1]], factors[:, -1] = vectors, bias
            factors *= self.sides[at].rated[:, None]

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the state of a checkpoint."""
        for name, value in state.items():
            self.state[name].copy_(value)

    def close(self) -> None:
        """Shut down the thread pool."""
        self.pool.shutdown()

    def sweep(self) -> float:
        """Draw every unknown once.

        Returns:
            Sum of the squared errors of all ratings before the sweep, squared rating units.
        """
        with one_thread():  # the work of this thread is small
            return self._sweep()

    def _sweep(self) -> float:
        self.state["sweep"] += 1
        rng = np.random.default_rng([self.seed, int(self.state["sweep"])])
        errors = torch.zeros(len(self.state["precision"]), dtype=torch.float64)
        for at in (0, 1):
            precision = self._draw_prior(at, rng)
            self.draw_side(at, precision, errors, rng)
        total = float(errors.sum())
        self.state["noise"].fill_(int(self.sides[0].counts.sum()) / max(total, 1e-12))
        return total * self.unit**2

    def _draw_prior(self, at: int, rng: np.random.Generator) -> Tensor:
        """Draw the prior of a side's vectors: Lambda (float64 [k, k], returned), m, y and lambda."""
        side, other, state = self.sides[at], self.sides[1 - at], self.state
        factors, means, common = state[f"factors_{at}"], state[f"svdpp_means_{at}"], state[f"prior_mean_{at}"]
        vectors, penalty = state[f"svdpp_vectors_{at}"], state[f"penalty_{at}"]
        scatter, degrees = torch.zeros(self.width, self.width, dtype=torch.float64), 0
        if self.has_svdpp[at]:
            scatter, degrees = float(penalty) * vectors.double().mT @ vectors.double(), int(other.rated.sum())
        mean, precision = normal_wishart((factors - means)[side.rated], scatter, degrees, rng)
        common.copy_(mean)
        if self.has_svdpp[at]:
            root = torch.linalg.cholesky(precision).float()  # vectors times root have unit noise
            residual, white = (factors - common - means) @ root, vectors @ root
            noise = _normal(rng, tuple(vectors.shape)).numpy()
            weights = self.svdpp_weights[at].numpy(), self.svdpp_squares[at].numpy()
            matrix = other.ratings.indices.numpy(), other.ratings.offsets.numpy()
            cuts = np.linspace(0, self.width, self.threads + 1).astype(int)

            def draw(low: int, high: int) -> None:
                columns = [np.ascontiguousarray(part[:, low:high]) for part in (noise, white.numpy(), residual.numpy())]
                self.draw_vectors(*matrix, *weights, np.float32(penalty), *columns)
                for part, new in zip((white, residual), columns[1:], strict=True):
                    part.numpy()[:, low:high] = new

            _wait([self.pool.submit(draw, *cut) for cut in itertools.pairwise(cuts) if cut[0] < cut[1]])
            spread = float(white.double().square().sum())
            penalty.fill_(rng.gamma(SHAPE + degrees * self.width / 2) / (SHAPE + spread / 2))
            vectors.copy_(torch.linalg.solve_triangular(root, white, upper=False, left=False))
            centred = torch.linalg.solve_triangular(root, residual, upper=False, left=False)
            means.copy_((factors - common - centred) * side.rated[:, None])
        return precision

    def draw_side(self, at: int, precision: Tensor, errors: Tensor, rng: np.random.Generator) -> None:
        """Draw all vectors of a side, and the users' precisions with them.

        Args:
            at: Side.
            precision: float64 [k, k], Lambda.
            errors: float64 [num_users], output: squared errors of the users' ratings before the draw.
            rng: Generator of the sweep.
        """
        side, other = self.sides[at], self.state[f"factors_{1 - at}"]
        factors = self.state[f"factors_{at}"]
        lam = precision.float()
        prior = (self.state[f"prior_mean_{at}"] + self.state[f"svdpp_means_{at}"]) @ lam
        features = other.clone()
        features[:, -1] = self.sides[1 - at].rated
        conditional = Conditional(
            features,
            offset=other[:, -1] + self.state["global_bias"],
            root_alpha=self.state["precision"].sqrt() if at else None,
            gammas=torch.from_numpy(rng.standard_gamma(DEGREES_OF_FREEDOM / 2 + self.sides[0].counts.numpy() / 2)),
            precision=lam,
            prior=prior,
            noise=_normal(rng, tuple(factors.shape)),
            sigmoid=self.sigmoid,
            gamma_rate=DEGREES_OF_FREEDOM / 2 / float(self.state["noise"]),
            user_precision=self.state["precision"],
        )
        chunks = side.chunks[self.own_chunks]
        _wait([self.pool.submit(draw_chunk, factors, chunk, conditional, errors) for chunk in chunks])
        if self.all_reduce is not None:  # each vector belongs to one process and the others add zeros: the sum is exact
            parts = [factors] if at else [factors, errors, self.state["precision"]]
            mine = torch.zeros(len(factors), dtype=torch.bool)
            for chunk in chunks:
                mine[chunk.side] = True
            for part in parts:
                part[~mine] = 0
                self.all_reduce(part)

    def tables(self) -> DotProductTables:
        """Return the last draw as tables; index 0, the unknown one, has the prior mean m."""
        centred = []
        for at, side in enumerate(self.sides):
            centred.append((self.state[f"factors_{at}"] - self.state[f"prior_mean_{at}"]) * side.rated[:, None])
        users, items = centred
        user_mean, item_mean = self.state["prior_mean_0"], self.state["prior_mean_1"]
        global_bias = self.state["global_bias"] + user_mean[:-1] @ item_mean[:-1] + user_mean[-1] + item_mean[-1]
        return DotProductTables(
            users[:, :-1],
            items[:, :-1],
            users[:, -1] + users[:, :-1] @ item_mean[:-1],
            items[:, -1] + items[:, :-1] @ user_mean[:-1],
            global_bias,
        )


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers: float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _wait(jobs: Iterable[Future[None]]) -> None:
    for job in jobs:
        job.result()
