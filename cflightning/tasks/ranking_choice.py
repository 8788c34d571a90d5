"""The choice of a ranking model by validation rows: a few models of seconds, and a rule that ignores noise."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from tqdm import tqdm

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import VAL
from cflightning.evaluation.rankings import EvalUsers, select_eval_users, user_ndcg
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.bce import INITIAL_STD
from cflightning.objectives.registry import MULTITASK_RANKING, find_ranking_objective
from cflightning.objectives.settings import TableSize
from cflightning.objectives.solver import InteractionColumns
from cflightning.tasks.objective_options import SEPARATE_OPTIONS
from cflightning.tasks.ranking_data import interaction_columns, table_size
from cflightning.tasks.ranking_head import VAL_USERS, ranking_tables

log = logging.getLogger(__name__)

SPARSE_DENSITY = 0.005
"""Share of all pairs that have an interaction, below which scaling items by their popularity is tried."""
MIN_ERRORS = 2.0
"""Standard errors of the difference by which a later candidate must be better than an earlier one."""


class Candidate(NamedTuple):
    """A ranking objective with settings.

    Attributes:
        objective: Name of the objective.
        dim: Latent factors.
        options: Settings that differ from their defaults, by name.
    """

    objective: str
    dim: int
    options: Mapping[str, float]

    def __str__(self) -> str:
        settings = "".join(f", {name} {value:g}" for name, value in self.options.items())
        return f"{self.objective} (dim {self.dim}{settings})"


def make_candidates(
    objective: str | None, dim: int | None, options: Mapping[str, float], size: TableSize, *, separate: bool
) -> list[Candidate]:
    """Return the models among which a fit chooses, the one that is best on most tables first.

    Args:
        objective: Ranking objective, which leaves no choice; None for any.
        dim: Latent factors; None for the default of each objective.
        options: Settings of the objective, which leave no choice either.
        size: Size of the training part.
        separate: Whether the network ranks beside one that predicts ratings.
    """

    def candidate(name: str, options: Mapping[str, float]) -> Candidate:
        found = find_ranking_objective(name)
        return Candidate(name, dim or (found.separate_dim if separate else found.default_dim), options)

    if objective or options:
        return [candidate(objective or MULTITASK_RANKING, options)]
    scaled = {"l2": 3.0, "user_power": 0.3, "item_power": 0.5}
    sparse = size.interactions < SPARSE_DENSITY * size.users * size.items
    return [candidate("ease", {}), *[candidate("ease", scaled)] * sparse, candidate("ials", {})]


class Trial(NamedTuple):
    """A trained candidate.

    Attributes:
        candidate: The candidate.
        network: Its network.
        settings: Complete settings of the objective.
        ndcg: float64 [users], nDCG@10 of each validation user.
    """

    candidate: Candidate
    network: EmbeddingDot
    settings: dict[str, float]
    ndcg: Tensor


@torch.no_grad()
def train_candidate(
    candidate: Candidate,
    columns: InteractionColumns,
    size: TableSize,
    users: EvalUsers | None,
    *,
    seed: int,
    epochs: int | None = None,
) -> Trial:
    """Train a candidate, and measure it on validation users.

    Args:
        candidate: Objective and settings.
        columns: Interactions of the training part.
        size: Size of the training part.
        users: Users of the validation part; None if there are none.
        seed: Seed of all random draws.
        epochs: Number of epochs; None for the default of the objective.

    Raises:
        ConfigError: A setting is unknown to the objective or out of range, or the objective ignores weights.
    """
    objective = find_ranking_objective(candidate.objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EmbeddingDot(
            size.users, size.items, candidate.dim, std=INITIAL_STD, autoencoder=objective.autoencoder
        )
    network.requires_grad_(False)
    solver = objective.make_solver(columns, size, network, candidate.options, dim=candidate.dim, seed=seed)
    for epoch in range(epochs or solver.default_epochs):
        solver.train_epoch(epoch, epochs or solver.default_epochs)
    solver.close()
    settings = solver.settings.values()
    ndcg = torch.zeros(0, dtype=torch.float64)
    if users is not None:
        ndcg = user_ndcg(users, ranking_tables(objective, settings, network, users))
    return Trial(candidate, network, settings, ndcg)


def best_trial(ndcg: Sequence[Tensor]) -> int:
    """Return the index of the best of several models, measured on the same users.

    A later model replaces an earlier one only if its mean is higher by more than `MIN_ERRORS` standard errors of the
    difference: on few validation users the best of many is the luckiest.

    Args:
        ndcg: float64 [users] of each model.
    """
    best = 0
    for other in range(1, len(ndcg)):
        gain = ndcg[other] - ndcg[best]
        error = float(gain.std(correction=1)) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
        if float(gain.mean()) > MIN_ERRORS * error:
            best = other
    return best


class Choice(NamedTuple):
    """A chosen ranking model.

    Attributes:
        candidate: Objective and settings.
        compared: Mean nDCG@10 on validation users of all models, by description; empty if there was no choice.
        trial: The trained model; None if there was no choice.
    """

    candidate: Candidate
    compared: dict[str, float]
    trial: Trial | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Fields of the checkpoint's metadata about the comparison."""
        return {"ranking_trials": self.compared, "ranking_chosen": str(self.candidate) if self.compared else ""}


def choose_ranking(
    trainer: Trainer,
    data: RatingsDataModule,
    candidates: Sequence[Candidate],
    *,
    seed: int = 0,
    epochs: int | None = None,
) -> Choice:
    """Train models and choose one by validation rows; without any, or of one model, take the first one untrained.

    Args:
        trainer: Trainer of the fit; all of its processes choose the same.
        data: Data with the training and the validation part.
        candidates: The models.
        seed: Seed of all random draws.
        epochs: Number of epochs; None for the default of each objective.
    """
    users = select_eval_users(data, VAL, None, VAL_USERS, skip_empty=True) if len(candidates) > 1 else None
    if users is None:
        return Choice(candidates[0], {}, None)
    columns, size = interaction_columns(data), table_size(data)
    visible = trainer.progress_bar_callback is not None and trainer.is_global_zero
    trials = [
        train_candidate(candidate, columns, size, users, seed=seed, epochs=epochs)
        for candidate in tqdm(candidates, "Ranking", leave=False, disable=not visible)
    ]
    # Rounding may differ between machines, the chosen model must not.
    best = trials[trainer.strategy.broadcast(best_trial([trial.ndcg for trial in trials]))]
    compared = {str(trial.candidate): float(trial.ndcg.mean()) for trial in trials}
    values = ", ".join(f"{name} {value:.4f}" for name, value in compared.items())
    log.info("recommendations by %s; val/ndcg@10 of the compared models: %s", best.candidate, values)
    return Choice(best.candidate, compared, best)


def train_ranking_network(
    trainer: Trainer, data: RatingsDataModule, options: Mapping[str, Any], seed: int
) -> tuple[EmbeddingDot, dict[str, Any]]:
    """Train a network that ranks beside one that predicts ratings.

    Args:
        trainer: Trainer of the fit.
        data: Data with the training and the validation part.
        options: The options of `--model.ranking`.
        seed: Seed of all random draws.

    Returns:
        The network, on the CPU, and fields of the checkpoint's metadata.
    """
    objective, dim, epochs = (options.get(name) for name in SEPARATE_OPTIONS)
    settings = {name: value for name, value in options.items() if name not in SEPARATE_OPTIONS and value is not None}
    size = table_size(data)
    candidates = make_candidates(objective, dim, settings, size, separate=True)
    choice = choose_ranking(trainer, data, candidates, seed=seed, epochs=epochs)
    trial = choice.trial or train_candidate(
        choice.candidate, interaction_columns(data), size, None, seed=seed, epochs=epochs
    )
    return trial.network, {
        "ranking": trial.settings,
        "ranking_objective": choice.candidate.objective,
        "ranking_dim": choice.candidate.dim,
        "ranking_trained": True,
        **choice.metadata,
    }
