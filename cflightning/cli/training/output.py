"""Log lines and warnings of a command: those of this project are shown, Lightning's advertisements are not."""

from __future__ import annotations

import logging
import warnings

from lightning_utilities.core.rank_zero import rank_zero_only

IGNORED_WARNINGS = (
    "Starting from v1.9.0, `tensorboardX`",
    "LightningCLI's args parameter",  # the process has arguments too, and they are not those of the fit
    "The dirpath has changed from",  # test and predict save no checkpoints
    "Be aware that when using `ckpt_path`",  # callbacks of training
    "Using ModelCheckpoint with manual optimization",  # the fused engine
    ".*exists and is not empty",  # a resumed run
)
"""Beginnings of warnings that a user of the command line cannot act on (regular expressions)."""


@rank_zero_only
def show_log_lines() -> None:
    """Print the log lines of the library, in the first process alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    library = logging.getLogger("cflightning")
    if not library.handlers:
        library.addHandler(handler)
        library.setLevel(logging.INFO)


def ignore_warnings() -> None:
    """Ignore warnings that a user cannot act on; to be called inside `warnings.catch_warnings()`."""
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)  # with torch 2.13
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):  # seeds, missing devices, tips, repeated paths
        if (logger := logging.getLogger(name)).level < logging.WARNING:
            logger.setLevel(logging.WARNING)
