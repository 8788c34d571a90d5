"""SVD++ terms as prior means: of a user by the set of rated items, and of an item by the set of its users.

SVD++ (Koren 2008, eq. 15) adds to a user's factors the sum of vectors y of all items that the user has rated, whatever
the ratings; Rendle, Zhang & Koren 2019 add the same to items, by the users who have rated them. Here the sum is the
*prior mean* of the vector instead of a part of it (like side information in Macau, Simm et al. 2015)::

    p_u  ~  mean_u = w_u sum of y_j over j in N(u),  N(u): items that u has rated in the training part

so the penalty pulls p_u towards this mean instead of zero. The minimum is that of SVD++, but the table already holds
the served vectors: the model is a plain dot product from the first step on, and checkpoints, export and serving need no
SVD++ terms.

The weight is w_u = (|N(u)| - 1)^1/2 / |N(u)|, where Koren has |N(u)|^-1/2. In training the target item is itself in
N(u); in prediction it never is, so Koren's weight lets the term memorise ratings, the more the fewer items there are. A
user with one rating has no term, and for many ratings the weight tends to Koren's.
"""

from __future__ import annotations

from concurrent.futures import Executor

from torch import Tensor

from cflightning.models.penalty import count_weights
from cflightning.utils.csr import Csr


class SvdppTerm:
    """The SVD++ term of one table: vectors y, learned from the table, and the prior means that they give.

    Args:
        near: Interactions by index of the table: the rated items of each user, for a table of users.
        far: The same interactions by index of the opposite side: the users of each item.
        dim: Width of the table.
        l2_exponent: Exponent of the penalty on the table's vectors, see `count_weights`; y has the same.
        penalty: Penalty on y, as a multiple of the penalty on the table's vectors.

    Attributes:
        vectors: float32 [indices of the opposite side, dim], y.
        mean: float32 [indices of this side, dim], prior means.
    """

    def __init__(self, near: Csr, far: Csr, dim: int, l2_exponent: float, penalty: float = 1.0) -> None:
        self.near, self.far = near, far
        # A vector with n ratings has the penalty n times.
        (counts, precision), (_, penalties) = (
            (n, (n * count_weights(n, l2_exponent))[:, None]) for n in (near.counts.clamp(min=1), far.counts)
        )
        self.weight = (counts[:, None] - 1).float().sqrt() / counts[:, None]
        self.precision, self.penalties = precision, penalty * penalties
        self._initial_penalties = self.penalties
        self._data_curvature = far.sums(self.weight.square() * precision)
        self.curvature = self._data_curvature + self.penalties.clamp(min=1e-6)
        self.vectors = precision.new_zeros(len(far.counts), dim)
        self.mean = precision.new_zeros(len(counts), dim)

    def scale_penalty(self, multiple: float) -> None:
        """Set the penalty on y to a multiple of its initial value."""
        self.penalties = self._initial_penalties * multiple
        self.curvature = self._data_curvature + self.penalties.clamp(min=1e-6)

    def use_threads(self, pool: Executor | None, helpers: int) -> None:
        """Give threads to implementations that use them; torch has its own."""

    def step(self, table: Tensor, share: Tensor | None = None) -> None:
        """Move y down the gradient of the penalty, and the table along with the prior means, in place.

        This is a step of preconditioned steepest descent whose length is found by exact line search for each column.
        Moving the vectors with their means preserves what the ratings have taught them; otherwise they lag behind.

        Args:
            table: float32 [indices of this side, dim].
            share: float32 [indices of this side], share of the way to the mean that each vector is pulled first.
        """
        if share is not None:
            table.lerp_(self.mean, share[:, None])
        pull = self.precision * (table - self.mean)
        gradient = self.far.sums(self.weight * pull).sub_(self.penalties * self.vectors)
        change = gradient / self.curvature
        effect = self.near.sums(change).mul_(self.weight)
        bend = (self.precision * effect.square()).sum(0) + (self.penalties * change.square()).sum(0)
        length = (gradient * change).sum(0) / bend.clamp(min=1e-30)
        self.vectors += length * change
        effect *= length
        self.mean += effect
        table += effect
