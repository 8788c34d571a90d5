"""The task of `EmbeddingDot`, which predicts ratings, ranks, or does both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import torch

from cflightning.checkpoint.format import CheckpointMetadata
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.engines.svdpp_prior import SvdppSides
from cflightning.errors import CheckpointError, DataError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.bce import INITIAL_STD
from cflightning.objectives.fold_in import LeastSquaresFoldIn
from cflightning.objectives.registry import MULTITASK, Objectives, find_objectives, option_values, solver_names
from cflightning.objectives.settings import SearchRange
from cflightning.tasks.fit import Fit
from cflightning.tasks.head import Head
from cflightning.tasks.objective_options import check_ranking, default_objective
from cflightning.tasks.ranking_choice import choose_ranking, make_candidates, train_ranking_network
from cflightning.tasks.ranking_data import table_size
from cflightning.tasks.ranking_fit import SampledLossFit, SolverFit
from cflightning.tasks.ranking_head import RankingHead, SeparateRankingHead
from cflightning.tasks.rating import RecommenderTask
from cflightning.tasks.rating_fit import RatingFit
from cflightning.tasks.rating_head import RatingHead, configured_penalty
from cflightning.tasks.trained_networks import TrainedNetworks
from cflightning.utils.arguments import Arguments
from cflightning.utils.seeds import member_seed

SMALL_ROWS = 500_000
"""Number of training rows below which the default dim of a rating model is 128, which gains up to .002 RMSE."""


class EmbeddingDotTask(RecommenderTask):
    """Dot product of user and item factors plus biases, mapped into the rating range by a sigmoid.

    Args:
        dim: Latent factors; None for 128 with ratings of fewer than half a million, 256 with ease, else 64.
        objective: Objective of training; None for multitask, or for implicit feedback the better of ease and ials (bce
            on GPUs and by autograd). mse, squared error: predicts ratings, and is a poor ranker. The others rank by
            interactions, whatever the ratings: bce (cross-entropy with negative samples), softmax (of cosines, with
            negative samples: the best with few factors on large catalogues), ease (a linear autoencoder in closed form:
            seconds, and the best lists on most tables), ials (implicit alternating least squares), svd (a degree-scaled
            SVD: takes seconds, and the best with many factors), bpr and ccl (pairwise and cosine contrastive loss; by
            autograd alone). multitask: ratings by mse and rankings by separate factors, for a bundle that does both.
        ranking: Settings of the ranking objective, as `--model.ranking.l2 300`; here with their defaults, which depend
            on the table where no number is given. bce: negatives 8, l2, learning_rate 0.05, last_rate 0.003. softmax:
            negatives 256, temperature, learning_rate 0.1, last_rate 0.01, smooth_items 0.15 (one hop of neighbours
            after training). ials: weight, l2 0.015, exponent 1, block 64. ease: l2, user_power 0.2, item_power 0,
            dropout 0.2, rating_weight 0.5. svd: user_power 0.3, item_power 0.5, score_power 0.4. By autograd
            (--model.engine autograd, GPUs), with the task's learning rate and schedule, bce: negatives 8, l2; bpr:
            negatives 8, l2; softmax: negatives 1024, l2 0, temperature; ccl: negatives 1024, l2 0, margin 0.4, weight
            150; all: in_batch false (true: negatives are the batch's other items), dropout 0, smooth 0 (one hop of
            neighbours in training). With multitask also objective (bce, softmax, ease, ials or svd; by default the
            better of ease and ials), dim (48; 256 with ease) and epochs.
        std: Standard deviation of the initial factors; None for 0.01, with SVD++ terms 0.06.
        svdpp: Sides whose vectors have an SVD++ term (implicit feedback beside the ratings): `none`; `user`, by the
            items that a user has rated (Koren 2008); `both`, also for items by their users (Rendle, Zhang & Koren
            2019). Much more accurate wherever users and items have more than a few ratings, for twice the time and
            memory of training; the result is the same plain dot product.
        members: Ensemble members, which are trained together from different initial parameters; their average is served
            (an average of dot products is a dot product, compressed to the served dim). Slightly more accurate than one
            for as many times the work. With --model.engine gibbs: the solutions that make half of the average. With bce
            the served network has as many times the factors, unless `compress` is given.
        compress: Factors of the served dot product; None for as many as in training. Fewer are faster to serve; more
            lose less of an ensemble.
        kwargs: As for `NetworkTask`.
    """

    ranking_network: EmbeddingDot | None
    """The network that ranks beside the one that predicts ratings; None if one network is all."""

    def __init__(
        self,
        dim: int | None = None,
        objective: str | None = None,
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
        check.choice("objective", option_values(), optional=True)
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
        self.ranking_network = None
        self.save_hyperparameters()

    @property
    def objectives(self) -> Objectives:
        """The objectives in effect; before `build` those of the option."""
        ranking = self.ranking_options.get("objective") or self.metadata.ranking_objective
        return find_objectives(self.metadata.objective or self.objective or MULTITASK, ranking)

    @property
    def predicts_ratings(self) -> bool:  # type: ignore[override]
        """True if the model predicts ratings."""
        return self.objectives.rating is not None

    @property
    def predicts_rankings(self) -> bool:  # type: ignore[override]
        """True if the model ranks by interactions."""
        return self.objectives.ranking is not None

    @property
    def recommender(self) -> EmbeddingDot:
        """The network whose scores rank."""
        network = self.network if self.ranking_network is None else self.ranking_network
        assert isinstance(network, EmbeddingDot)
        return network

    def bundle_fold_in_settings(self, num_items: int) -> LeastSquaresFoldIn:
        """Return the weights by which a bundle folds in users; see `NetworkTask.bundle_fold_in_settings`."""
        ranking = self.objectives.ranking
        assert ranking is not None
        return ranking.bundle_fold_in_settings(self.metadata.ranking, num_items)

    @property
    def ranking_options(self) -> dict[str, Any]:
        """The options of `--model.ranking`."""
        return dict(self.ranking or {})

    @property
    def _trains_sampled_loss(self) -> bool:
        """True if a ranking objective is trained by its sampled loss, instead of its solver."""
        trainer = self.attached_trainer
        device = "cpu" if trainer is None else trainer.strategy.root_device.type
        ranking = self.objectives.ranking_alone
        return ranking is not None and ranking.trains_by_autograd(self.engine, device)

    def make_heads(self) -> Sequence[Head]:
        """Make a rating head, a ranking head, or both."""
        rating, ranking = self.objectives
        heads: list[Head] = [] if rating is None else [RatingHead(self)]
        if ranking is not None:
            ranking_head = RankingHead if rating is None else SeparateRankingHead
            heads.append(ranking_head(self, ranking, self.recommender))
        return heads

    def make_fit(self, data: RatingsDataModule) -> Fit:
        """Make the fit of ratings, or of rankings by a solver or by a sampled loss."""
        ranking = self.objectives.ranking_alone
        if ranking is None:
            return RatingFit(self, data)
        if self._trains_sampled_loss:
            return SampledLossFit(self, ranking, data, self.ranking_options)
        chosen = self.metadata.ranking if self.objective is None else {}
        return SolverFit(self, ranking, chosen | self.ranking_options)

    def on_train_epoch_start(self) -> None:
        """Train a separate ranking network before ratings are learned, so that every checkpoint has all of it."""
        if self.ranking_network is None or self.metadata.ranking_trained:
            return
        data, like = self.require_data(), self.ranking_network.item_factors.weight
        network, metadata = train_ranking_network(self.trainer, data, self.ranking_options, self.seed)
        self.ranking_network, self.metadata = network.to(like), replace(self.metadata, **metadata)
        self.heads = self.make_heads()

    # Networks --------------------------------------------------------------------------------------------------------

    def data_metadata(self, data: RatingsDataModule) -> CheckpointMetadata:
        """Return the metadata of a data module, with the objective that suits it."""
        implicit, name = data.table.rating is None, self.objective
        if name is None:
            autograd = self.engine == "autograd" or self.trainer.strategy.root_device.type != "cpu"
            name = default_objective(implicit, autograd)
            if implicit and not autograd and self.is_fitting and self.trainer.ckpt_path is None:
                options = ({} if self.l2 is None else {"l2": self.l2}) | self.ranking_options
                candidates = make_candidates(None, self.dim, options, table_size(data), separate=False)
                choice = choose_ranking(self.trainer, data, candidates, seed=self.seed)
                name, _, chosen = choice.candidate
                rows = data.split.sizes[TRAIN]
                return CheckpointMetadata(objective=name, train_rows=rows, ranking=dict(chosen), **choice.metadata)
        if find_objectives(name).rating is None:
            return CheckpointMetadata(objective=name, train_rows=data.split.sizes[TRAIN])
        if implicit:
            raise DataError(
                f"{data.table.name}: must have ratings to train on with --model.objective {name}, "
                f"got implicit feedback; give one of {', '.join(solver_names())}"
            )
        return replace(super().data_metadata(data), objective=name)

    @property
    def training_dim(self) -> int:
        """Latent factors in training: `dim`, or a default by the size of the training part, see `SMALL_ROWS`."""
        if self.dim is not None:
            return self.dim
        ranking = self.objectives.ranking_alone
        if ranking is not None:
            return ranking.default_dim
        small = (self.metadata.train_rows or SMALL_ROWS) < SMALL_ROWS
        return 128 if small and self.engine != "gibbs" else 64

    def build(self, vocabulary: Vocabulary, metadata: CheckpointMetadata) -> None:
        """Build networks and heads; see `NetworkTask.build`."""
        metadata = replace(metadata, objective=self.objective or metadata.objective or MULTITASK)
        self.metadata = metadata
        rating, ranking = self.objectives
        self.ranking_network = None
        if rating is not None and ranking is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                dim = int(self.ranking_options.get("dim") or metadata.ranking_dim or ranking.separate_dim)
                sizes = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
                self.ranking_network = EmbeddingDot(*sizes, dim, std=INITIAL_STD, autoencoder=ranking.autoencoder)
            self.ranking_network.requires_grad_(False)  # or several devices would wait for gradients that never come
        super().build(vocabulary, metadata)
        if self.is_fitting and self._trains_other_networks:
            self.ensemble = TrainedNetworks(self.network, self.build_members())

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingDot:
        """Make an `EmbeddingDot` of dim `compress`; without a rating range if no ratings are predicted."""
        ranking = self.objectives.ranking_alone
        if ranking is not None:
            dim = self.training_dim * (self.members if ranking.name == "bce" else 1)
            std = INITIAL_STD if self.std is None else self.std
            dim = dim if self.compress is None else self.compress
            return EmbeddingDot(num_users, num_items, dim, std=std, autoencoder=ranking.autoencoder)
        if self.compress is None:
            return self._build_member(num_users, num_items, rating_range, mean_rating)
        return EmbeddingDot(num_users, num_items, self.compress, rating_range, mean_rating, self.sigmoid, self.margin)

    @property
    def _trains_other_networks(self) -> bool:
        """True if other networks are trained than the one that is served: members, or that of a sampled loss."""
        ranking = self.objectives.ranking_alone
        if ranking is None:
            return self.engine != "gibbs" and (self.members > 1 or self.compress not in (None, self.training_dim))
        loss, smooth = ranking.sampled_loss, self.ranking_options.get("smooth") or 0.0
        return self._trains_sampled_loss and loss is not None and loss.serves_other_tables(smooth)

    def build_members(self) -> list[EmbeddingDot]:
        """Make the untrained members of an ensemble; the first has the initial parameters of a single network."""
        assert self.vocabulary is not None
        sizes = self.vocabulary.users.num_embeddings, self.vocabulary.items.num_embeddings
        networks = []
        for member in range(self.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(member_seed(self.seed, member))
                networks.append(self._build_member(*sizes, self.metadata.rating_range, self.metadata.mean_rating))
        return networks

    def _build_member(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingDot:
        if not self.predicts_ratings:
            return self.build_network(num_users, num_items, rating_range, mean_rating)
        std = (0.01 if self.svdpp == "none" else 0.06) if self.std is None else self.std
        return EmbeddingDot(
            num_users, num_items, self.training_dim, rating_range, mean_rating, self.sigmoid, self.margin, std=std
        )

    def adapt_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse to resume a run of another objective; see `NetworkTask.adapt_state_dict`."""
        super().adapt_state_dict(state)
        before = "ranking_network.user_factors.weight" in state
        if self.is_fitting and before != (self.ranking_network is not None):
            raise CheckpointError(
                f"--model.objective: must be {MULTITASK if before else 'that of the run'} to resume it, "
                f"got {self.metadata.objective}"
            )

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved, as plain data."""
        return super().settings_used() | {"objective": self.metadata.objective}

    def search_space(self, data: RatingsDataModule) -> dict[str, SearchRange]:
        """Return the ranges in which `tune` searches by default: option without `--` -> range."""
        rating, ranking = self.objectives
        if rating is not None:
            return rating.search_space(configured_penalty(self))
        assert ranking is not None
        return ranking.search_space(table_size(data), by_autograd=self._trains_sampled_loss)

    def resolved_options(self) -> dict[str, Any]:
        """Return the values of options of the command line that training derived: option without `--` -> value."""
        ranking = {f"model.ranking.{name}": value for name, value in self.metadata.ranking.items()}
        return super().resolved_options() | ranking | {"model.dim": self.training_dim}
