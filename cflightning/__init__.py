"""Collaborative filtering with PyTorch Lightning: from a table of ratings to recommendations in production.

>>> from cflightning import RatingsDataModule, EmbeddingDotTask, Trainer  # doctest: +SKIP
>>> data, task = RatingsDataModule("ratings.csv"), EmbeddingDotTask(dim=64)  # doctest: +SKIP
>>> Trainer(max_epochs=10).fit(task, data)  # doctest: +SKIP

Names are imported on first use: ``import cflightning`` takes milliseconds and does not import torch.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from cflightning.data.datamodule import RatingsDataModule
    from cflightning.data.sources.table_format import TableFormat
    from cflightning.data.splits.options import SplitOptions
    from cflightning.data.vocabulary import Vocabulary
    from cflightning.evaluation.ratings import RatingEvaluation
    from cflightning.models.embedding_dot import EmbeddingDot
    from cflightning.models.embedding_mlp import EmbeddingMLP
    from cflightning.tasks.base import NetworkTask
    from cflightning.tasks.embedding_dot import EmbeddingDotTask
    from cflightning.tasks.embedding_mlp import EmbeddingMLPTask
    from cflightning.tasks.rating import RecommenderTask

_MODULES = {
    "Trainer": "lightning.pytorch",
    "RatingsDataModule": "cflightning.data.datamodule",
    "SplitOptions": "cflightning.data.splits.options",
    "TableFormat": "cflightning.data.sources.table_format",
    "Vocabulary": "cflightning.data.vocabulary",
    "RatingEvaluation": "cflightning.evaluation.ratings",
    "EmbeddingDot": "cflightning.models.embedding_dot",
    "EmbeddingMLP": "cflightning.models.embedding_mlp",
    "NetworkTask": "cflightning.tasks.base",
    "RecommenderTask": "cflightning.tasks.rating",
    "EmbeddingDotTask": "cflightning.tasks.embedding_dot",
    "EmbeddingMLPTask": "cflightning.tasks.embedding_mlp",
}

__all__ = [
    "EmbeddingDot",
    "EmbeddingDotTask",
    "EmbeddingMLP",
    "EmbeddingMLPTask",
    "NetworkTask",
    "RatingEvaluation",
    "RatingsDataModule",
    "RecommenderTask",
    "SplitOptions",
    "TableFormat",
    "Trainer",
    "Vocabulary",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
