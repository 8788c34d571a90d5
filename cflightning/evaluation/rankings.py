"""Evaluation of recommendations: ranking metrics of the users of a validation or test part."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.errors import DataError
from cflightning.metrics.exposure import ExposureMetrics
from cflightning.metrics.ranking import METRICS, RankingMetrics, is_relevant, user_metrics
from cflightning.metrics.sampled import METRICS as SAMPLED_METRICS
from cflightning.metrics.sampled import SampledMetrics
from cflightning.metrics.top_k import TopK, rank_all, rank_scores
from cflightning.models.network import DotProductTables
from cflightning.utils.csr import Csr

log = logging.getLogger(__name__)

KS = 10, 20
"""Cut-offs of all ranking metrics."""
_NDCG, _SAMPLED_NDCG = [*METRICS].index("ndcg"), SAMPLED_METRICS.index("sampled_ndcg")


class EvalUsers(NamedTuple):
    """The users of a part that this device evaluates.

    Attributes:
        users: int64 [users], indices of a user table.
        seen: Seen items of the users, which are not recommended.
        relevant: Relevant items of the users.
        candidates: int64 [users, 1 + negatives], item indices, first the relevant item; 0 for "no item". None if the
            data has no sampled candidates.
        candidate_share: Share of the users with candidates that are evaluated, over all devices; the relevant item of
            the others has no training row.
        popularity: int64 [num_items], training users of each item.
        training_users: Number of training users.
        measures_exposure: Whether to compute the metrics of all recommendations together.
        held_out: Whether the users are held out; `users` are then indices of a table of these alone, and `seen` are
            their fold-in items.
    """

    users: Tensor
    seen: Csr
    relevant: Csr
    candidates: Tensor | None
    candidate_share: float
    popularity: Tensor
    training_users: int
    measures_exposure: bool
    held_out: bool = False


def select_eval_users(
    data: RatingsDataModule, part: int, trainer: Trainer | None, limit: int | None = None, *, skip_empty: bool = False
) -> EvalUsers | None:
    """Select the users of a part, each on one device.

    Recommendations are from the whole catalogue without the items of the user in the training part and, for TEST, in
    the validation part; relevant are the items of the user in the part. Users and items without training row are left
    out. The seen items of held-out users (--data.split.method users) are their fold-in items.

    Args:
        data: The data.
        part: VAL or TEST.
        trainer: Its processes share the users; None for all users.
        limit: Largest number of users, over all devices, evenly spaced; None for all.
        skip_empty: Whether to return None instead of raising the error.

    Returns:
        The users; None if the part has none.

    Raises:
        DataError: No row of the part has a known user and a known item.
    """
    if not data.split.sizes[part]:
        return None
    held_out = data.split_method == "users"
    if held_out:
        _, seen, relevant = data.held_out_users(part)
    else:
        try:
            relevant = data.interactions(part)
        except DataError as error:
            if not skip_empty:
                raise
            log.info("no ranking metrics: %s", error)
            return None
        seen = data.interactions(TRAIN) if part == VAL or not data.split.sizes[VAL] else data.interactions(TRAIN, VAL)
    users = relevant.counts.nonzero().squeeze(-1)
    if limit is not None and len(users) > limit:
        users = users[torch.linspace(0, len(users) - 1, limit).long()]
    if not len(users):
        return None
    local = users if trainer is None else users[trainer.global_rank :: trainer.world_size]
    sampled = data.candidates if part == TEST else None
    candidates, share = None, 1.0
    if sampled is not None:
        position = torch.zeros(relevant.num_rows, dtype=torch.int64)
        position[sampled.user] = torch.arange(len(sampled.user))
        candidates = torch.where(sampled.valid, sampled.item, 0)[position[local]]
        share = len(users) / len(sampled.user)
    return EvalUsers(
        torch.arange(len(local)) if held_out else local,
        seen.take(local),
        relevant.take(local),
        candidates,
        share,
        torch.from_numpy(data.counts()[1]),
        data.num_users - 1,
        measures_exposure=part == TEST,
        held_out=held_out,
    )


class RankingResult(NamedTuple):
    """The evaluation of the recommendations of one model.

    Attributes:
        users: Users of this device.
        metrics: Metrics over the users of all devices, name -> float64 [].
        ndcg: float64 [users], on the CPU: the `ndcg@10` of every user of this device, among sampled candidates if the
            data has these.
    """

    users: EvalUsers
    metrics: dict[str, Tensor]
    ndcg: Tensor


class RankingEvaluator:
    """Accumulates the metrics of recommendations, block by block in the order of the users.

    Args:
        eval_users: The users.
        device: Device of the recommendations.
    """

    def __init__(self, eval_users: EvalUsers, device: torch.device | str = "cpu") -> None:
        self.eval_users, self.device = eval_users, device
        self.ranking = RankingMetrics(KS).to(device)
        self.exposure = ExposureMetrics(eval_users.popularity, eval_users.training_users, KS).to(device)
        self.sampled = SampledMetrics(KS).to(device)
        self.begin = 0
        self._ndcg = [torch.zeros(0, dtype=torch.float64)]

    def update(self, top: TopK, candidate_scores: Tensor | None) -> None:
        """Add the next users: their recommendations, and the scores of their candidates (float [users, candidates])."""
        eval_users, begin = self.eval_users, self.begin
        self.begin = end = begin + len(top.item)
        self.ranking.update(top.item, eval_users.relevant.take(torch.arange(begin, end)).to(self.device))
        ndcg = self.ranking.user_values[_NDCG, 0]
        if eval_users.measures_exposure:
            self.exposure.update(top.item)
        if eval_users.candidates is not None and candidate_scores is not None:
            item = eval_users.candidates[begin:end].to(self.device)
            known = item[:, 0] > 0
            item, score = item[known], candidate_scores[known]
            self.sampled.update(item[:, 0], score[:, 0], item[:, 1:], score[:, 1:])
            ndcg = torch.zeros_like(ndcg).masked_scatter(known, self.sampled.user_values[_SAMPLED_NDCG, 0])
        self._ndcg.append(ndcg.double().cpu())

    def result(self) -> RankingResult:
        """Return metrics of rankings and, for TEST, of exposure.

        If the data has sampled candidates, the plain names (`hr@10`, `ndcg@10`) are metrics of ranks among these, as in
        their protocol, and those of the whole catalogue are `full_hr@10` and so on. An item without training row then
        counts as a miss, so that the metrics are over all users like published ones.
        """
        metrics = self.ranking.compute() | (self.exposure.compute() if self.eval_users.measures_exposure else {})
        if self.eval_users.candidates is not None:
            share = self.eval_users.candidate_share
            sampled = {name.removeprefix("sampled_"): value * share for name, value in self.sampled.compute().items()}
            metrics = {f"full_{name}": value for name, value in metrics.items()} | sampled
        return RankingResult(self.eval_users, metrics, torch.cat(self._ndcg))


def evaluate_tables(eval_users: EvalUsers, tables: DotProductTables) -> RankingResult:
    """Evaluate a dot product, whose user table has the indices of `EvalUsers.users`; see `RankingEvaluator.result`."""
    users, items, bias = tables.user_vectors, tables.item_vectors, tables.item_bias
    device = items.device
    evaluator = RankingEvaluator(eval_users, device)
    vectors = users[eval_users.users.to(device)]
    for top in rank_all(vectors, items, bias, eval_users.seen.to(device), max(KS)):
        scores = None
        if eval_users.candidates is not None:
            block = slice(evaluator.begin, evaluator.begin + len(top.item))
            item = eval_users.candidates[block].to(device)
            scores = (items[item] @ vectors[block, :, None]).squeeze(-1) + bias[item]
        evaluator.update(top, scores)
    return evaluator.result()


def user_ndcg(eval_users: EvalUsers, tables: DotProductTables, k: int = 10) -> Tensor:
    """Return nDCG@k of each evaluated user, by the scores of a dot product.

    Args:
        eval_users: The users.
        tables: The dot product; its user table has the indices of `EvalUsers.users`.
        k: Cut-off.

    Returns:
        float64 [users], on the CPU; 0 for a user without relevant items.
    """
    vectors, begin, values = tables.user_vectors[eval_users.users], 0, [torch.zeros(0, dtype=torch.float64)]
    for top in rank_all(vectors, tables.item_vectors, tables.item_bias, eval_users.seen, k):
        relevant = eval_users.relevant.part(begin, begin + len(top.item))
        begin += len(top.item)
        hit = is_relevant(top.item, relevant)
        values.append(user_metrics(hit, relevant.counts, (k,))[_NDCG, 0])
    return torch.cat(values)


def evaluate_scores(eval_users: EvalUsers, blocks: Iterable[Tensor]) -> RankingResult:
    """Evaluate scores of the whole catalogue; see `RankingEvaluator.result`.

    Args:
        eval_users: The users.
        blocks: float32 [users of a block, num_items], in the order of the users.
    """
    evaluator = RankingEvaluator(eval_users)
    for scores in blocks:
        index = torch.arange(evaluator.begin, evaluator.begin + len(scores))
        candidates = None if eval_users.candidates is None else scores.gather(1, eval_users.candidates[index])
        evaluator.update(rank_scores(scores, eval_users.seen.take(index), max(KS)), candidates)
    return evaluator.result()
