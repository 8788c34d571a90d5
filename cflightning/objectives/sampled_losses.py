"""Ranking objectives by autograd: batches of choices with negatives, on any device and any number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from cflightning.data.loaders.interactions import ChoiceBatch, ChoiceLoader
from cflightning.data.loaders.negative_sampling import BatchNegatives, Negatives, UniformNegatives, hits
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.lightgcn import Smoothing
from cflightning.objectives import ranking
from cflightning.objectives.rankers import default_l2, default_temperature
from cflightning.objectives.scores import drop, normalised, pair_scores

EPOCHS = 20
"""Of a training, where no number is given."""
USUAL: dict[str, dict[str, Any]] = {
    "bce": {"negatives": 8, "l2": None},
    "bpr": {"negatives": 8, "l2": None},
    "softmax": {"negatives": 1024, "temperature": None, "l2": 0.0},
    "ccl": {"negatives": 1024, "margin": 0.4, "weight": 150.0, "l2": 0.0},
}
"""Settings of each objective, and what they are if nothing else is said; None for what suits the table."""
SHARED: dict[str, Any] = {"in_batch": False, "dropout": 0.0, "smooth": 0.0}
"""Settings of all of them."""
COSINE = "softmax", "ccl"
"""Objectives whose scores are cosines: the answering vectors are of length 1, and there are no biases."""


class Sampled(NamedTuple):
    """An objective and its settings.

    Attributes:
        objective: a key of `USUAL`.
        settings: name -> value, complete.
        smoothing: through which vectors are trained; None for none.
    """

    objective: str
    settings: dict[str, Any]
    smoothing: Smoothing | None = None

    @property
    def unused(self) -> tuple[str, ...]:
        """Parameters of the network that play no part."""
        biases = "user_bias.weight", "global_bias"
        if self.objective == "bce":
            return ()
        return (*biases, "item_bias.weight") if self.objective in COSINE else biases

    def negatives(self, counts: Tensor) -> Negatives:
        """What draws negatives.

        Args:
            counts: int64 [num_items], training rows of each item.
        """
        if self.settings["in_batch"]:
            return BatchNegatives(counts)
        return UniformNegatives(len(counts), int(self.settings["negatives"]), shared=self.objective in COSINE)

    def tables(self, network: EmbeddingDot) -> tuple[Tensor, Tensor]:
        """The vectors that answer: float32 [num_users, dim] and [num_items, dim]."""
        users, items = network.user_factors.weight, network.item_factors.weight
        if self.objective in COSINE:
            users, items = normalised(users, items)
        return (users, items) if self.smoothing is None else self.smoothing(users, items)

    def loss(self, network: EmbeddingDot, batch: ChoiceBatch) -> Tensor:
        """Sum of what the choices of a batch cost, and the penalty on the rows that they look up: float32 []."""
        if self.smoothing is None:  # rows alone: normalising whole tables would fill whole gradients
            p, q = network.user_factors(batch.user), network.item_factors(batch.item)
            n = network.item_factors(batch.negatives)
            if self.objective in COSINE:
                p, q = normalised(p, q)
                n, _ = normalised(n, n)
        else:
            users, items = self.tables(network)
            p, q, n = users[batch.user], items[batch.item], items[batch.negatives]
        settings = self.settings
        positive, negatives = pair_scores(drop(p, float(settings["dropout"])), q, n, hits(batch.item, batch.negatives))
        if self.objective not in COSINE:
            bias = network.item_bias.weight.squeeze(-1)
            positive, negatives = positive + bias[batch.item], negatives + bias[batch.negatives]
            if self.objective == "bce":
                base = network.global_bias + network.user_bias(batch.user).squeeze(-1)
                positive, negatives = positive + base, negatives + base[:, None]
        if self.objective == "softmax":
            total = ranking.softmax(
                positive, negatives, temperature=float(settings["temperature"]), log_q=batch.log_q, inside=True
            )
        elif self.objective == "ccl":
            total = ranking.ccl(positive, negatives, margin=float(settings["margin"]), weight=float(settings["weight"]))
        else:
            total = (ranking.logistic if self.objective == "bce" else ranking.bpr)(positive, negatives)
        if l2 := float(settings["l2"]):  # every sample costs the rows that it looks up
            m = negatives.shape[1]
            drawn = n.square().sum() * (len(p) if n.dim() == 2 else 1)  # shared ones meet every choice of the batch
            times = 1 / m if self.objective == "bpr" else 1.0  # whose m negatives count as one
            total = total + l2 / 2 * ((1 + m * times) * p.square().sum() + q.square().sum() + times * drawn)
        return total

    def loader(self, counts: Tensor) -> Callable[..., ChoiceLoader]:
        """Makes the batches; called as `BatchLoader` is."""

        def make(user: Tensor, item: Tensor, rating: Tensor, **options: Any) -> ChoiceLoader:
            known = (user > 0) & (item > 0)
            return ChoiceLoader(user[known], item[known], self.negatives(counts), **options)

        return make


def sampled(
    objective: str, settings: Mapping[str, Any], user: Tensor, item: Tensor, num_users: int, num_items: int
) -> Sampled:
    """An objective with its settings checked and completed.

    Args:
        objective: a key of `USUAL`.
        settings: name -> value.
        user: int32 [n], rows of the training part.
        item: int32 [n], rows of the training part.
        num_users: rows of the user table.
        num_items: rows of the item table.

    Raises:
        ConfigError: a setting has no such name here.
    """
    known = USUAL[objective] | SHARED
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(f"--model.ranking: has {', '.join(known)} with {objective}, got {', '.join(unknown)}")
    usual = {"l2": default_l2(len(user)), "temperature": default_temperature(len(user), num_users, num_items)}
    complete = {name: usual.get(name) if value is None else value for name, value in known.items()}
    complete |= {name: value for name, value in settings.items() if value is not None}
    smoothing = None
    if complete["smooth"]:
        smoothing = Smoothing(user, item, num_users, num_items, share=float(complete["smooth"]))
    return Sampled(objective, complete, smoothing)
