"""The rating tasks of the project's networks."""

from __future__ import annotations

from typing import Any, get_args

from cflightning.engines.svdpp_prior import SvdppSides
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.objectives.rankers import STD
from cflightning.tasks.ranking import Objective, RankingTask, check_ranking
from cflightning.tasks.rating import RatingTask
from cflightning.utils.arguments import Arguments

FEW_ROWS = 500_000
"""Of ratings in the training part."""


class EmbeddingDotTask(RankingTask):
    """Dot product of user and item factors plus biases, squeezed into the rating range.

    Args:
        dim: Latent factors; None for 64, or 128 for ratings by gradients of fewer than half a million, where they cost
            less than a second.
        objective: What is minimised; None for multitask, or where the data is choices for ials (bce on GPUs and by
            autograd). mse, squared error: predicts ratings, and is nearly useless for lists. The others say what
            somebody would choose, whatever the ratings: bce (cross-entropy with sampled negatives), softmax (of
            cosines, with sampled negatives: the best with few factors on large catalogues), ials (implicit alternating
            least squares), svd (a degree-scaled SVD: seconds, and best with many factors), bpr and ccl (pairwise, and
            cosine contrastive loss; by autograd alone). multitask: ratings by mse, and lists by factors of their own,
            for a bundle that answers both questions.
        ranking: Settings of what makes lists, as `--model.ranking.weight 0.1`. bce: negatives, learning_rate,
            last_rate, l2. softmax: negatives, temperature, learning_rate, last_rate, smooth. ials: weight, l2,
            exponent, block. svd: user_power, item_power, score_power. By autograd (--model.engine autograd, GPUs; the
            task's rate and schedule): negatives, l2, in_batch (negatives are the batch's other items), dropout, smooth
            (trains through one hop of neighbours), with softmax temperature, with ccl margin and weight. With
            multitask also objective (bce, softmax, ials or svd; ials if not given), dim (48) and passes.
        std: Standard deviation of the initial factors; None for 0.01, with bags 0.06.
        svdpp: What else says who a user is: `user`, the items that the user has rated, whatever the rating (Koren
            2008); `both`, the users of an item for the item, too (Rendle, Zhang & Koren 2019). Better by far wherever
            users and items have more than a few ratings, for twice the time and memory of training; what comes out is
            the same plain dot product.
        members: Networks that are trained together, each from a start of its own; their mean answers (a mean of dot
            products is one, cut down to the dim of the answer). A little better than one for as many times the work.
            With --model.engine gibbs: the solutions that make half of the mean. With bce the answer has as many factors
            more, unless `compress` says otherwise.
        compress: Factors of the dot product that answers; None for as many as in training. Fewer serve faster; more
            lose less of a mean.
        kwargs: As for `RatingTask`.
    """

    def __init__(
        self,
        dim: int | None = None,
        objective: Objective | None = None,
        ranking: dict[str, Any] | None = None,
        std: float | None = None,
        svdpp: SvdppSides = "both",
        members: int = 1,
        compress: int | None = None,
        **kwargs: Any,
    ) -> None:
        check = Arguments("model", locals())
        for name in ("dim", "compress"):
            check.whole(name, 1, optional=True)
        check.whole("members", 1)
        check.choice("objective", get_args(Objective), optional=True)
        check.choice("svdpp", get_args(SvdppSides))
        check.number("std", 0, optional=True)
        check_ranking(check)
        super().__init__(**kwargs)
        self.dim = dim
        self.objective = objective
        self.ranking = ranking
        self.std = std
        self.svdpp = svdpp
        self.members = members
        self.compress = compress
        self.save_hyperparameters()

    @property
    def factors(self) -> int:
        """Of a user in training: `dim`, or what the training part's size says.

        On slices of the training parts 128 instead of 64 are worth .0018 RMSE on MovieLens latest small, .0008 on
        MovieTweetings 100K, nothing on MovieLens 100K and .0016 on MovieLens 1M, where they cost a second and more.
        """
        if self.dim is not None:
            return self.dim
        small = (
            self.predicts_ratings and self.engine != "gibbs" and (self.facts.get("train_rows") or FEW_ROWS) < FEW_ROWS
        )
        return 128 if small else 64

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingDot:
        """An `EmbeddingDot` of dim `compress`; one without a range where no ratings are predicted."""
        if not self.predicts_ratings:
            whole = self.factors * (self.members if self.objective == "bce" else 1)
            dim = whole if self.compress is None else self.compress
            return EmbeddingDot(num_users, num_items, dim, std=STD if self.std is None else self.std)
        if self.compress is None:
            return self.build_member(num_users, num_items, rating_range, mean_rating)
        return EmbeddingDot(num_users, num_items, self.compress, rating_range, mean_rating, self.sigmoid, self.margin)

    @property
    def trains_ensemble(self) -> bool:
        """Whether the network that answers is made of others."""
        if not self.predicts_ratings:
            return self.answers_apart
        return self.engine != "gibbs" and (self.members > 1 or self.compress not in (None, self.factors))

    def build_member(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingDot:
        """An `EmbeddingDot` of dim `factors`."""
        if not self.predicts_ratings:
            return self.build_network(num_users, num_items, rating_range, mean_rating)
        std = (0.01 if self.svdpp == "none" else 0.06) if self.std is None else self.std
        return EmbeddingDot(
            num_users, num_items, self.factors, rating_range, mean_rating, self.sigmoid, self.margin, std=std
        )


class EmbeddingMLPTask(RatingTask):
    """Concatenated user and item embeddings through a small multi-layer perceptron (fastai's `EmbeddingNN`).

    For comparison: it is less accurate than the dot product on every table that was tried (Rendle et al. 2020, "Neural
    collaborative filtering vs. matrix factorization revisited"), and on small ones hardly better than biases alone.

    Args:
        dim: Width of each embedding.
        hidden: Widths of the hidden layers.
        std: Standard deviation of the initial embeddings.
        kwargs: As for `RatingTask`.
    """

    def __init__(self, dim: int = 64, hidden: tuple[int, ...] = (100, 50), std: float = 0.01, **kwargs: Any) -> None:
        check = Arguments("model", locals())
        check.whole("dim", 1)
        check.number("std", 0)
        if not isinstance(hidden, list | tuple) or not all(isinstance(one, int) and one >= 1 for one in hidden):
            raise check.refuse("hidden", "be widths of at least 1")
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden = hidden
        self.std = std
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingMLP:
        """An `EmbeddingMLP`."""
        return EmbeddingMLP(
            num_users,
            num_items,
            self.dim,
            self.hidden,
            rating_range,
            mean_rating,
            self.sigmoid,
            self.margin,
            std=self.std,
        )
