"""What makes vectors that rank, a pass at a time: sampled negatives, alternating least squares, or an SVD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.models.average import average, compress
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.solvers.smoothing import smooth

STD = 0.1
"""Standard deviation of initial factors that gradient steps start from."""


class Pairs(NamedTuple):
    """Who chose what.

    Attributes:
        user: int32 [n], rows.
        item: int32 [n], rows.
        weight: float32 [n], what each counts; None where all count the same.
    """

    user: Tensor
    item: Tensor
    weight: Tensor | None = None


class Ranker(ABC):
    """Makes the tables of a network that ranks.

    Args:
        pairs: of the training part.
        network: whose tables are made, in place.
        settings: name -> value; see `defaults` of the subclass.
        dim: latent factors that are learnt; the network has more where it answers for several members.
        members: how many are learnt side by side.
        seed: of whatever is drawn.
        threads: any number gives the same.

    Attributes:
        settings: complete; those that were not given are what suits the table.

    Raises:
        ConfigError: a setting has no such name here, or no such value.
    """

    known: ClassVar[dict[str, type[Ranker]]] = {}
    """By the name of what is minimised."""
    passes: ClassVar[int]
    """Of a training, where no number is given."""
    defaults: ClassVar[dict[str, Any]]

    def __init__(
        self,
        pairs: Pairs,
        network: EmbeddingDot,
        settings: Mapping[str, Any],
        *,
        dim: int,
        members: int = 1,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        unknown = sorted(set(settings) - set(self.defaults))
        if unknown:
            raise ConfigError(
                f"--model.ranking: has {', '.join(self.defaults)} with {type(self).__name__.lower()}, "
                f"got {', '.join(unknown)}"
            )
        self.pairs, self.network, self.dim, self.members = pairs, network, dim, members
        self.seed, self.threads = seed, threads
        self.settings = {**self.defaults, **{name: value for name, value in settings.items() if value is not None}}

    @abstractmethod
    def run(self, number: int, of: int) -> None:
        """Take a pass; the network answers by it afterwards.

        Args:
            number: of the pass, from 0.
            of: how many there will be.
        """

    @abstractmethod
    def loss(self) -> float:
        """What the last pass came to, a mean over pairs or samples; for people, and to see whether it is finite."""

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold beside the network for training to go on."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        return

    def close(self) -> None:
        """End threads."""
        return


class Logistic(Ranker):
    """Cross-entropy of choices and uniform negatives (Rendle et al. 2020), by the compiled step of the CPU.

    Settings: `negatives` for each choice; `learning_rate` of the first pass and `last_rate` of the last, geometric
    between; `l2` of a sample's rows, None for what suits the number of choices.
    """

    passes = 32
    defaults: ClassVar[dict[str, Any]] = {"negatives": 8, "learning_rate": 0.05, "last_rate": 0.003, "l2": None}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.kernels.choices import ChoiceTables, SampledLogistic

        user, item, negatives = self.pairs.user.numpy(), self.pairs.item.numpy(), int(self.settings["negatives"])
        if self.pairs.weight is not None:
            raise ConfigError("--data.weight: is known to --model.objective ials alone, got bce")
        sizes = self.network.num_users, self.network.num_items
        self.learners = [self.network] if self.members == 1 else [
            _start(*sizes, self.dim, self.seed + member * 1_000_003) for member in range(self.members)
        ]  # fmt: skip
        self.solvers = [
            SampledLogistic(user, item, *sizes, negatives=negatives, seed=self.seed + member, threads=self.threads)
            for member in range(self.members)
        ]
        self.tables = [
            ChoiceTables(*(table.view(-1).numpy() if table.dim() < 2 else table.numpy() for table in learner.fold()))
            for learner in self.learners
        ]
        if self.settings["l2"] is None:
            self.settings["l2"] = usual_l2(len(user))
        self._loss = 0.0

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; the learning rate falls from pass to pass."""
        rate = falling(self.settings, number, of)
        pairs = [*zip(self.solvers, self.tables, strict=True)]
        total = sum(solver.epoch(number, tables, rate, float(self.settings["l2"])) for solver, tables in pairs)
        self._loss = total / max(sum(solver.samples for solver in self.solvers), 1)
        if self.members > 1:
            mean = average([learner.fold() for learner in self.learners], [1.0] * self.members)
            width = self.network.dim
            self.network.take(mean if width >= mean.user_vectors.shape[1] else compress(mean, width))

    def loss(self) -> float:
        """Mean logistic loss, before the steps."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """Tables of the members."""
        if self.members == 1:
            return {}
        return {
            f"{member}.{name}": table
            for member, learner in enumerate(self.learners)
            for name, table in learner.fold()._asdict().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if state and self.members > 1:
            for member, learner in enumerate(self.learners):
                for name, table in learner.fold()._asdict().items():
                    table.copy_(state[f"{member}.{name}"])

    def close(self) -> None:
        """End threads."""
        for solver in self.solvers:
            solver.close()


class Alternating(Ranker):
    """Implicit ALS (Hu, Koren & Volinsky 2008; Rendle et al. 2022), from a truncated SVD.

    Settings: `weight` of everything that was not chosen, None for what suits the size of the catalogue; `l2`,
    `exponent` and `block` as of `solvers.ials.Ials`.
    """

    passes = 3
    defaults: ClassVar[dict[str, Any]] = {"weight": None, "l2": 0.015, "exponent": 1.0, "block": 64}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.solvers.ials import Ials

        network, settings = self.network, self.settings
        if settings["weight"] is None:
            settings["weight"] = usual_weight(network.num_items)
        self.solver = Ials(
            *self.pairs[:2], network.num_users, network.num_items, confidence=self.pairs.weight,
            threads=self.threads, **settings,
        )  # fmt: skip

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; solves for all users, then for all items."""
        users, items = self.network.fold()[:2]
        if number == 0:
            for table, start in zip((users, items), self.solver.start(self.dim, self.seed), strict=True):
                table.copy_(start)
        self.solver.sweep(users, items)

    def loss(self) -> float:
        """What is minimised, by pair."""
        return self.solver.loss(*self.network.fold()[:2]) / max(len(self.pairs.user), 1)


class Spectral(Ranker):
    """A degree-scaled truncated SVD, without a gradient; see `solvers.svd`.

    Settings: `user_power`, `item_power` and `score_power`.
    """

    passes = 2
    defaults: ClassVar[dict[str, Any]] = {"user_power": 0.3, "item_power": 0.5, "score_power": 0.4}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.solvers.interactions import interactions
        from cflightning.solvers.svd import DegreeScaledSVD

        sides = interactions(*self.pairs[:2], self.network.num_users, self.network.num_items)
        self.solver = DegreeScaledSVD(sides, self.dim, seed=self.seed, threads=self.threads, **self.settings)
        self._held = 0.0

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; a sweep of the iteration."""
        self._held = self.solver.sweep()
        for table, found in zip(self.network.fold()[:2], self.solver.finish(), strict=True):
            table.copy_(found)

    def loss(self) -> float:
        """The share of the scaled matrix that the vectors do not hold."""
        return 1 - self._held

    @property
    def state(self) -> dict[str, Tensor]:
        """The subspace, which is wider than the vectors."""
        basis = self.solver.basis
        return {} if basis is None else {"basis": basis, "values": self.solver.values}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if state:
            self.solver.basis, self.solver.values = state["basis"].clone(), state["values"].clone()


class Softmax(Ranker):
    """Sampled softmax of cosines (Wu et al. 2022) by the compiled step of the CPU, from the vectors of an SVD.

    Settings: `negatives` shared by a block of choices; `temperature`, None for what suits the density; `learning_rate`
    of the first pass and `last_rate` of the last, geometric between; `smooth`, what the answering item vectors take of
    those of their users, a hop of LightGCN (He et al. 2020) after training.
    """

    passes = 16
    defaults: ClassVar[dict[str, Any]] = {
        "negatives": 256, "temperature": None, "learning_rate": 0.1, "last_rate": 0.01, "smooth": 0.15,
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.kernels.softmax import SampledSoftmax
        from cflightning.solvers.interactions import interactions

        if self.pairs.weight is not None:
            raise ConfigError("--data.weight: is known to --model.objective ials alone, got softmax")
        user, item = self.pairs[:2]
        sizes = self.network.num_users, self.network.num_items
        known = (user > 0) & (item > 0)
        self.sides = interactions(user, item, *sizes)
        self.settings["temperature"] = self.settings["temperature"] or usual_temperature(len(user), *sizes)
        self.solver = SampledSoftmax(
            user[known].numpy(), item[known].numpy(), *sizes, negatives=int(self.settings["negatives"]),
            temperature=float(self.settings["temperature"]), seed=self.seed, threads=self.threads,
        )  # fmt: skip
        self.tables = torch.empty(0, 0), torch.empty(0, 0)
        self._loss = 0.0

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; the learning rate falls from pass to pass."""
        if number == 0:
            self.tables = self._start()
        rate = falling(self.settings, number, of)
        self._loss = self.solver.epoch(number, self.tables[0].numpy(), self.tables[1].numpy(), rate)
        shares = 0.0, float(self.settings["smooth"])
        smoothed = smooth(*self.tables, self.sides, shares=shares, unit=False, threads=self.threads)
        for table, found in zip(self.network.fold()[:2], smoothed, strict=True):
            table.copy_(found)

    def _start(self) -> tuple[Tensor, Tensor]:
        from cflightning.kernels.softmax import unit_rows
        from cflightning.solvers.svd import DegreeScaledSVD

        solver = DegreeScaledSVD(self.sides, self.dim, seed=self.seed, threads=self.threads)
        solver.sweep()
        solver.sweep()
        users, items = solver.finish()
        return torch.from_numpy(unit_rows(users.numpy())), torch.from_numpy(unit_rows(items.numpy()))

    def loss(self) -> float:
        """Mean loss of a choice, before the steps."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """Tables without smoothing, and the steps' accumulators."""
        squares = (torch.from_numpy(side) for side in self.solver.squares)
        return dict(zip(("users", "items", "user_squares", "item_squares"), (*self.tables, *squares), strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if state:
            self.tables = state["users"].clone(), state["items"].clone()
            for own, name in zip(self.solver.squares, ("user_squares", "item_squares"), strict=True):
                own[:] = state[name].numpy()


Ranker.known.update({"bce": Logistic, "softmax": Softmax, "ials": Alternating, "svd": Spectral})


def falling(settings: Mapping[str, Any], number: int, of: int) -> float:
    """The learning rate of a pass, from `learning_rate` to `last_rate`, geometric.

    Raises:
        ConfigError: the last one is not the lower one, or not above 0.
    """
    first, last = float(settings["learning_rate"]), float(settings["last_rate"])
    if not 0 < last <= first:
        raise ConfigError(f"--model.ranking.last_rate: must be above 0 and at most {first:g}, got {last:g}")
    return float(first * (last / first) ** (number / max(of - 1, 1)))


def usual_l2(choices: int) -> float:
    """The penalty of cross-entropy: fewer choices say less of each row. From data sets of 75,000 and 994,000."""
    return float(0.005 * min(max(choices / 1e6, 0.02), 1.0) ** -0.45)


def usual_weight(num_items: int) -> float:
    """Of what was not chosen: with this, all of it together weighs as much on every catalogue."""
    return min(300 / max(num_items, 1), 0.3)


def usual_temperature(choices: int, users: int, items: int) -> float:
    """The softer, the denser the table: .08 suits Gowalla (.07 %), .2 MovieLens (5 %)."""
    return float(0.08 * max(choices / max(users * items, 1) / 7e-4, 1.0) ** 0.2)


def compiled() -> bool:
    """Whether compiled steps can be used."""
    return find_spec("numba") is not None


def _start(num_users: int, num_items: int, dim: int, seed: int) -> EmbeddingDot:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmbeddingDot(num_users, num_items, dim, std=STD).requires_grad_(False)
