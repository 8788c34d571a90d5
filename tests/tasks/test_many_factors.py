"""Every objective and engine trains with more factors than users or items."""

import math

import pytest
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions

pytest.importorskip("numba", reason="the compiled engines need the extra `fast`")

KINDS = {
    "fused": {"objective": "mse"},
    "fused, no SVD++ terms": {"objective": "mse", "svdpp": "none"},
    "fused, members": {"objective": "mse", "members": 2},
    "fused, compressed to more": {"objective": "mse", "dim": 8, "compress": 64},
    "gibbs": {"objective": "mse", "engine": "gibbs"},
    "gibbs, members": {"objective": "mse", "engine": "gibbs", "members": 2, "compress": 64},
    "multitask": {"objective": "multitask", "ranking": {"dim": 64}},
    "multitask, svd": {"objective": "multitask", "ranking": {"dim": 64, "objective": "svd"}},
    "bce, members": {"objective": "bce", "members": 2, "compress": 64},
    **{objective: {"objective": objective} for objective in ("ials", "svd", "bce", "softmax")},
    **{
        f"{objective}, autograd": {"objective": objective, "engine": "autograd"}
        for objective in ("mse", "bce", "bpr", "softmax", "ccl")
    },
}


@pytest.mark.parametrize(
    "sizes", [pytest.param((24, 300), id="few users", marks=pytest.mark.slow), pytest.param((300, 24), id="few items")]
)
@pytest.mark.parametrize("kind", KINDS)
def test_more_factors_than_users_or_items_train(kind, sizes):
    users, items = sizes
    synthetic = {"num_users": users, "num_items": items, "num_ratings": 1500}
    data = RatingsDataModule(source="synthetic", synthetic=synthetic, split=SplitOptions(val_fraction=0.05))
    task = EmbeddingDotTask(**{"dim": 64} | KINDS[kind])
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=2, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(task, data)
    [metrics] = trainer.test(task, data, verbose=False)
    assert metrics
    assert all(math.isfinite(value) for value in metrics.values())
    assert task.network.user_factors.weight.shape[1] >= 64
