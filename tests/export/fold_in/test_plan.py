"""The plan of fold-in by the objective of the task."""

import pandas as pd
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning_export.contents.networks import bundle_networks
from cflightning_export.fold_in.plan import fold_in_specs


def test_a_liked_item_is_rated_lower_if_another_network_makes_the_recommendations():
    users, items = pd.Series(range(30)).repeat(5), pd.Series(range(150)) % 12
    frame = pd.DataFrame({"user": users.to_numpy(), "item": items, "rating": items % 5 + 1}).drop_duplicates()
    levels = {}
    for objective in ("mse", "multitask"):
        data = RatingsDataModule.from_frame(frame, split=SplitOptions(val_fraction=0.2))
        task = EmbeddingDotTask(dim=2, objective=objective)
        trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                          enable_model_summary=False, accelerator="cpu")  # fmt: skip
        trainer.fit(task, data)
        levels[objective] = fold_in_specs(task, bundle_networks(task), task.vocabulary).users.liked_level
    assert levels == {"mse": 0.9, "multitask": 0.75}
