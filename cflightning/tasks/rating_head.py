"""The head that measures predicted ratings by RMSE and MAE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cflightning.checkpoint.format import ADAPTIVE_PENALTY_KEY
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.metrics.rating import RatingErrors
from cflightning.models.penalty import Penalty
from cflightning.objectives.mse import Mse
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.head import Head


def configured_penalty(task: NetworkTask) -> Penalty:
    """Return the penalty of a task's options, or the default for those that are not given."""
    known = task.vocabulary
    sizes = (None, None) if known is None else (len(known.users), len(known.items))
    l2, exponent = Mse().default_penalty(svdpp=task.svdpp != "none", users=sizes[0], items=sizes[1])
    return Penalty(l2 if task.l2 is None else task.l2, exponent if task.l2_exponent is None else task.l2_exponent)


class RatingHead(Head):
    """RMSE and MAE of predicted ratings.

    Args:
        task: Task whose served network predicts ratings.
    """

    def __init__(self, task: NetworkTask) -> None:
        self.task = task
        self._errors = RatingErrors()

    @property
    def base_penalty(self) -> Penalty:
        """The penalty of the training; `AdaptivePenalty` multiplied it further."""
        l2, exponent = configured_penalty(self.task)
        known = self.task.metadata.l2
        return Penalty(l2 if known is None else known, exponent)

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved; l2 is the adapted one."""
        task, (l2, exponent) = self.task, self.base_penalty
        adapted = task.resume_state.get(ADAPTIVE_PENALTY_KEY, {}) if task.l2 is None else {}
        used = {"l2": l2 * adapted.get("factors", 1.0), "l2_exponent": exponent, "svdpp": task.svdpp,
                "members": task.members, "seed": task.seed}  # fmt: skip
        dim = getattr(task.network, "dim", None)
        return used if dim is None else used | {"dim": int(dim)}

    def resolved_options(self) -> dict[str, Any]:
        """Return the penalty before it is adapted."""
        l2, exponent = self.base_penalty
        return {"model.l2": l2, "model.l2_exponent": exponent}

    def on_evaluation_start(self) -> None:
        """Start new sums."""
        self._errors = RatingErrors().to(self.task.device)

    def evaluate_batch(self, batch: RatingBatch) -> Tensor:
        """Add the errors of a batch, and return its scores: float32 [batch], rating units."""
        scores: Tensor = self.task(batch.user, batch.item)
        self._errors.update(scores, batch.rating)
        return scores

    def log_metrics(self, prefix: str) -> None:
        """Log RMSE and MAE."""
        # Summed over devices already: sync_dist averages equal numbers, and Lightning requires it.
        metrics = {f"{prefix}/{name}": value for name, value in self._errors.compute().items()}
        self.task.log_dict(metrics, prog_bar=True, sync_dist=True)
