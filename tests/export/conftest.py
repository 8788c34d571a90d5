"""Fixtures of the tests of export."""

import pytest
import yaml
from lightning.pytorch import Trainer

from cflightning import RatingsDataModule


@pytest.fixture(scope="session")
def make_run():
    """Writes a run folder, as the command line leaves it: config.yaml and checkpoints/best.ckpt; returns its data."""

    def make(folder, frame, task, **options):
        (folder / "checkpoints").mkdir(parents=True)
        path = folder.parent / "table.csv"
        frame.to_csv(path, index=False)
        options = {"split": {"val_fraction": 0.05}, **options, "path": str(path)}
        about = {"class_path": "cflightning.RatingsDataModule", "init_args": options}
        (folder / "config.yaml").write_text(yaml.safe_dump({"data": about}))
        data = RatingsDataModule(**options)
        fit = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu")  # fmt: skip
        fit.fit(task, data)
        fit.save_checkpoint(folder / "checkpoints" / "best.ckpt")
        return data

    return make
