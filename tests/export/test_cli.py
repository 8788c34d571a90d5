"""The command of export."""

import numpy as np
import pytest
import torch

from cflightning import EmbeddingDotTask
from cflightning.checkpoint.format import CheckpointMetadata
from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning_export.cli import main


@pytest.mark.parametrize(("users", "items"), [([], [1, 2]), ([1, 2], [])], ids=["users", "items"])
@pytest.mark.parametrize("layout", ["bundle", "triton"])
def test_a_checkpoint_without_known_ids_is_refused(users, items, layout, tmp_path):
    task = EmbeddingDotTask(dim=2, objective="mse")
    ids = (Ids(np.array(side, np.int64)) for side in (users, items))
    task.build(Vocabulary(*ids), CheckpointMetadata(rating_range=(1.0, 5.0), mean_rating=3.0))
    checkpoint = {"state_dict": task.state_dict(), "pytorch-lightning_version": "2.0"}
    checkpoint["hyper_parameters"] = dict(task.hparams)
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "some.ckpt")
    with pytest.raises(ExportError, match="must know at least one user and one item"):
        main([str(tmp_path / "some.ckpt"), str(tmp_path / "out"), "--layout", layout, "--without-history"])
    assert not (tmp_path / "out").exists()
