"""Checks of the paths in an untrusted checkpoint: the states of callbacks name files that are rewritten or deleted."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning.checkpoint.format import Content
from cflightning.errors import CheckpointError
from cflightning.utils.text import quote_untrusted

PATH_KEYS = {"best_model_path", "last_model_path", "kth_best_model_path", "best_k_models", "dirpath"}
"""Keys of the state of a callback that name files."""


def file_in_run(path: object, folders: Iterable[str]) -> str:
    """Return the checkpoint that a state names, if it is in a checkpoint folder of the run; otherwise an empty text.

    A file of the same name in the folder stands for one elsewhere, as in a run that was moved.

    Args:
        path: Path in the state.
        folders: Checkpoint folders of the run.
    """
    if not isinstance(path, str) or not path or "://" in path:
        return ""
    for folder in folders:
        for candidate in (path, os.path.join(folder, os.path.basename(path))):
            if os.path.isfile(candidate) and is_inside(candidate, folder):
                return candidate
    return ""


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path is in a folder, after following all links."""
    home = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), home]) == home


def best_checkpoint(trainer: Trainer) -> str:
    """Return the best checkpoint of a Trainer's first `ModelCheckpoint`: a path of this run or an address, or empty."""
    callback = trainer.checkpoint_callback
    if not isinstance(callback, ModelCheckpoint):
        return ""
    path = callback.best_model_path
    return path if "://" in path or is_inside(path, str(callback.dirpath)) else ""  # else that of another run


def confine_states(content: Content, folders: Iterable[str], source: str | None) -> None:
    """Restrict the files that states of callbacks name to the checkpoint folders of the run.

    `ModelCheckpoint` would test, delete and rewrite the files that its state names, or fetch an address.

    Args:
        content: A loaded checkpoint; changed in place.
        folders: Checkpoint folders of the run, from its own callbacks.
        source: The loaded file; if it is in one of the folders, the state belongs to the same run.

    Raises:
        CheckpointError: The states are not a dict.
    """
    folders = list(folders)
    states = content.get("callbacks", {})
    if not isinstance(states, dict):
        raise CheckpointError(
            f"checkpoint: callbacks: must be states by name, got {quote_untrusted(states)}; was it edited?"
        )
    parent = os.path.dirname(os.path.realpath(source)) if source else ""
    home = next((folder for folder in folders if os.path.realpath(folder) == parent), "")
    for state in states.values():
        if not isinstance(state, dict) or not PATH_KEYS & set(state):
            continue
        best = state.get("best_k_models")
        best = {file_in_run(path, folders): score for path, score in best.items()} if isinstance(best, dict) else {}
        best.pop("", None)
        worst = file_in_run(state.get("kth_best_model_path"), folders)
        if state.get("kth_best_model_path") and worst not in best:
            best, worst = {}, ""  # ModelCheckpoint looks the worst one up among the best
        state |= {"best_k_models": best, "kth_best_model_path": worst}
        for name in ("best_model_path", "last_model_path"):
            state[name] = file_in_run(state.get(name), folders)
        if state.get("dirpath") not in folders:
            state["dirpath"] = home
