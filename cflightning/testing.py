"""Contract suites: tests that every network or task must pass, to inherit from.

A test file of five lines runs them:

    class TestMyNetwork(NetworkContract):
        def make(self, num_users, num_items, **kwargs):
            return MyNetwork(num_users, num_items, dim=4, **kwargs)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.models.network import ScoringNetwork
from cflightning.tasks.base import NetworkTask


class NetworkContract(ABC):
    """Contract of `ScoringNetwork`: shapes, range, the unknown index, and agreement of its methods of scoring."""

    num_users, num_items = 7, 11

    @abstractmethod
    def make(self, num_users: int, num_items: int, **kwargs: Any) -> ScoringNetwork:
        """Return the network under test; `kwargs` are `rating_range`, `mean_rating`, `sigmoid`, `margin`, `std`."""

    def _network(self, **kwargs: Any) -> ScoringNetwork:
        torch.manual_seed(0)
        kwargs = {"rating_range": (1.0, 5.0), "mean_rating": 3.5, "std": 0.5, **kwargs}
        network = self.make(self.num_users, self.num_items, **kwargs).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # zero and other initial values could hide a mistake
            for name, parameter in network.named_parameters():
                noise = 0.3 * torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 2 and parameter.shape[0] in (self.num_users, self.num_items) and "." in name:
                    noise[0] = 0
                parameter.add_(noise)
        return network

    def _pairs(self) -> tuple[Tensor, Tensor]:
        pairs = torch.cartesian_prod(torch.arange(self.num_users), torch.arange(self.num_items))
        return pairs[:, 0], pairs[:, 1]

    def test_scores_are_float32_inside_the_range(self) -> None:
        """Scores are float32 and clipped, also for extreme parameters."""
        for options in ({}, {"margin": 0.2}, {"sigmoid": False}):
            network = self._network(**options, std=20.0)
            scores = network(*self._pairs())
            assert scores.dtype == torch.float32
            assert scores.shape == (self.num_users * self.num_items,)
            assert scores.min() >= 1
            assert scores.max() <= 5

    def test_one_pair_scores_as_in_a_batch_and_no_pair_gives_nothing(self) -> None:
        """Batches of size 0 and 1 are scored like larger ones."""
        network = self._network()
        users, items = self._pairs()
        batch = network(users, items)
        for at in (0, 5, -1):
            one = network(users[at].reshape(1), items[at].reshape(1))
            torch.testing.assert_close(one[0], batch[at])
        assert network(users[:0], items[:0]).shape == (0,)

    def test_catalogue_agrees_with_pairs(self) -> None:
        """The logits of the catalogue equal those of its pairs."""
        network = self._network()
        users, items = self._pairs()
        catalogue = network.catalogue(torch.arange(self.num_users))
        assert catalogue.shape == (self.num_users, self.num_items)
        torch.testing.assert_close(catalogue.reshape(-1), network.logit(users, items), atol=1e-5, rtol=1e-5)
        assert network.catalogue(torch.arange(0)).shape == (0, self.num_items)

    def test_folded_tables_agree_with_pairs(self) -> None:
        """The tables of a dot-product model give the logits of its pairs."""
        network = self._network()
        tables = network.tables()
        if tables is None:
            return
        users, items = self._pairs()
        dot = (tables.user_vectors[users].double() * tables.item_vectors[items].double()).sum(-1)
        logit = tables.global_bias.double() + tables.user_bias[users] + tables.item_bias[items] + dot
        torch.testing.assert_close(network.logit(users, items).double(), logit, atol=1e-5, rtol=1e-5)

    def test_unknown_index_is_zero_and_stays_zero(self) -> None:
        """Embedding 0 is zero at the start, and after steps that use it."""
        torch.manual_seed(0)
        network = self.make(self.num_users, self.num_items, rating_range=(1.0, 5.0), mean_rating=3.5, std=0.5)
        tables = [m for m in network.modules() if isinstance(m, torch.nn.Embedding)]
        assert tables
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            scores, users, items = network.scores_and_norms(*self._pairs())
            (
                (network(*self._pairs()) - 2).square().sum() + (scores - 2).square().sum() + (users + items).sum()
            ).backward()
            optimizer.step()
        for table in tables:
            assert torch.count_nonzero(table.weight[0]) == 0
            assert torch.count_nonzero(table.weight[1:]) > 0

    def test_scores_and_norms_are_those_of_the_two_methods(self) -> None:
        """`scores_and_norms` equals the two separate methods, in values and gradients."""
        network = self._network().train()
        users, items = self._pairs()
        gradients = []
        for scores, *norms in (
            (network(users, items), *network.squared_norms(users, items)),
            network.scores_and_norms(users, items),
        ):
            network.zero_grad()
            ((scores - 2).square().sum() + 0.3 * norms[0].sum() + 0.2 * norms[1].square().sum()).backward()
            gradients.append([None if p.grad is None else p.grad.clone() for p in network.parameters()])
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)

    def test_a_start_predicts_the_mean(self) -> None:
        """With small factors, all initial scores are near the mean rating."""
        torch.manual_seed(0)
        for options in ({}, {"margin": 0.1}, {"sigmoid": False}):
            network = self.make(
                self.num_users, self.num_items, rating_range=(1.0, 5.0), mean_rating=3.7, std=1e-4, **options
            )
            assert abs(network(*self._pairs()).mean().item() - 3.7) < 0.3


class TaskContract(ABC):
    """Every task of a rating network: it learns, and its checkpoint alone restores it."""

    @abstractmethod
    def make(self) -> NetworkTask:
        """Return the task under test, a small one."""

    def test_learns_and_loads_from_its_checkpoint(self, tmp_path: Path) -> None:
        """A short training beats the mean rating, and the loaded task has the same scores."""
        from lightning.pytorch import Trainer

        from cflightning.tasks.loading import load_task

        data = RatingsDataModule(
            source="synthetic",
            synthetic={"num_users": 60, "num_items": 40, "num_ratings": 1200},
            batch_size=64,
            split=SplitOptions(val_fraction=0.05),
        )
        task = self.make()
        trainer = Trainer(
            max_epochs=8, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(task, data)
        [metrics] = trainer.test(task, data, verbose=False)
        ratings = data.table.ratings
        constant = float(((ratings[data.split.test] - data.mean_rating) ** 2).mean() ** 0.5)
        assert metrics["test/rmse"] < constant
        trainer.save_checkpoint(tmp_path / "task.ckpt")
        loaded = load_task(tmp_path / "task.ckpt")
        users, items = torch.arange(data.num_users), torch.arange(data.num_users) % data.num_items
        torch.testing.assert_close(loaded(users, items), task.eval()(users, items), rtol=0, atol=0)
        assert loaded.vocabulary is not None
        assert loaded.vocabulary.users.values.tolist() == data.vocabulary.users.values.tolist()
