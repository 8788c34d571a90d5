"""Provenance of a checkpoint: the table and the split that it was trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cflightning.data.sources import DEFAULT_SOURCE
from cflightning.errors import CheckpointError, DataError
from cflightning.utils.text import truncate_start

Settings = dict[str, Any]
"""Arguments of a data module as plain values: option -> value, or group of options -> its options."""
PATHS = ("path", "test_path")
"""Settings that are paths."""
GROUPS = ("table", "split")
"""Settings that are groups of options."""
DATA_MODULE_NAMES = ("cflightning.RatingsDataModule", "cflightning.data.datamodule.RatingsDataModule")
"""Names by which a config may name the data module; its settings are those of a checkpoint."""
NOT_SAVED = ("cache", "other_data")
"""Arguments that do not describe the data."""


@dataclass(frozen=True)
class Provenance:
    """The table and the split that a checkpoint was trained on.

    Attributes:
        settings: Arguments of the data module; paths are absolute.
        name: Name of the table, for messages.
        rows: Number of its rows.
        fingerprint: Digest of its rows in their order.
        parts: Digest of the part of every row.
        frame: Whether the table was a data frame in memory, which no setting describes.
    """

    settings: Settings
    name: str
    rows: int
    fingerprint: str
    parts: str
    frame: bool = False

    def state(self) -> Settings:
        """Return plain types for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: object) -> Provenance | None:
        """Return the provenance in a checkpoint; None for a checkpoint without.

        Raises:
            CheckpointError: The state was not written by `state`.
        """
        if state is None:
            return None
        kinds = {"settings": dict, "name": str, "rows": int, "fingerprint": str, "parts": str, "frame": bool}
        if not isinstance(state, dict) or any(not isinstance(state.get(name), kind) for name, kind in kinds.items()):
            raise CheckpointError("checkpoint: its data cannot be read; was it edited?")
        provenance = cls(**{name: state[name] for name in kinds})
        for name, value in provenance.settings.items():
            if not isinstance(name, str) or not _is_plain(value) or (name in PATHS and not _is_local_path(value)):
                raise CheckpointError(f"checkpoint: data setting {str(name)[:60]!r} cannot be used; was it edited?")
        if not provenance.name.isprintable():
            raise CheckpointError("checkpoint: the name of its data cannot be read; was it edited?")
        return provenance


def plain_settings(arguments: Mapping[str, object]) -> Settings:
    """Return arguments of a data module as a checkpoint stores them: plain values and absolute paths."""
    settings: Settings = {name: _plain(value) for name, value in arguments.items() if name not in NOT_SAVED}
    for name in PATHS:
        if settings.get(name) is not None:
            settings[name] = os.path.abspath(os.path.expanduser(settings[name]))
    return settings


def data_settings(provenance: Provenance, arguments: Mapping[str, object], command: str) -> Settings:
    """Return the settings that a command takes from a checkpoint where no others are given.

    A given path or source stands for the whole table with its test part. `predict` scores another table, so it takes
    only the columns of ids.

    Args:
        provenance: Provenance of the checkpoint.
        arguments: Arguments of the data module with their defaults.
        command: fit, validate, test or predict.

    Raises:
        CheckpointError: The settings were written by another version.
        DataError: There is no table to read.
    """
    known = {name for name, _ in _flatten(arguments)}
    unknown = sorted(name for name, value in _flatten(provenance.settings) if name not in known and value is not None)
    if unknown:
        raise CheckpointError(
            f"checkpoint: has data settings that this version does not know ({', '.join(unknown)[:100]})"
        )
    settings = {name: value for name, value in provenance.settings.items() if name in arguments}
    named = arguments.get("path") is not None or arguments.get("source") != DEFAULT_SOURCE
    if command == "predict":
        if not named and (
            provenance.frame or settings.get("path") is not None or settings.get("source") != DEFAULT_SOURCE
        ):
            raise DataError("--data.path: must name the table whose rows are to be scored, got none")
        columns = {name: settings.get("table", {}).get(name) for name in ("user", "item")}
        columns = {name: column for name, column in columns.items() if column is not None}
        return {"table": columns} if columns else {}
    if named:
        source = ("path", "source", "test_path", "synthetic")
        return {name: value for name, value in settings.items() if name not in source}
    if provenance.frame:
        raise DataError(
            f"--data.path: must name the table, since the checkpoint was trained on {provenance.rows:,} rows in memory"
        )
    for name in PATHS:
        path = settings.get(name)
        if path is not None and not (os.path.isfile(path) or os.path.isdir(path)):
            raise DataError(
                f"--data.{name}: must exist, but {truncate_start(path, 100)}, which the checkpoint was trained on, "
                f"does not; give the table by --data.{name}"
            )
    return settings


def _flatten(settings: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Iterate over options by their full names, such as `split.method`."""
    for name, value in settings.items():
        if name in GROUPS and isinstance(value, Mapping):
            yield from ((f"{name}.{option}", setting) for option, setting in value.items())
        else:
            yield name, value


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _is_plain(value: object, depth: int = 3) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(entry, depth - 1) for entry in value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(name, str) and _is_plain(entry, depth - 1) for name, entry in value.items())
    if isinstance(value, str):
        return len(value) <= 4096 and "://" not in value and "\0" not in value
    return value is None or isinstance(value, bool | int | float)


def _is_local_path(value: object) -> bool:
    """Return whether a value is None or an absolute path of this machine, which excludes network shares."""
    return value is None or (isinstance(value, str) and os.path.isabs(value) and value[:2] not in ("//", "\\\\"))
