"""The data that a checkpoint was trained on, as the checkpoint keeps it, and whether other rows may be tested by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cflightning.data.fingerprint import digest_parts
from cflightning.data.splits.split import TEST, TRAIN, VAL, VAL_FRACTION, split_table
from cflightning.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from cflightning.data.datamodule import RatingsDataModule

Stage = Literal["fit", "validate", "test"]
PATHS = ("path", "test_path")
USUAL_SOURCE = "movielens-small"
HERE = ("cache", "other_data")
"""Arguments that say nothing of the data."""


@dataclass(frozen=True)
class Provenance:
    """The table and the split that a checkpoint was trained on.

    Attributes:
        settings: Arguments of the data module, plain values; paths are absolute.
        name: The table's name, for messages.
        rows: How many rows it has.
        fingerprint: Digest of its rows in their order.
        parts: Digest of the part of every row.
        frame: Whether the table was a frame in memory, which no setting leads back to.
    """

    settings: dict[str, Any]
    name: str
    rows: int
    fingerprint: str
    parts: str
    frame: bool = False

    @classmethod
    def of(cls, data: RatingsDataModule) -> Provenance:
        """Return that of a data module; reads its table where that was not done yet."""
        table, split, settings = data.table, data.split, dict(data.settings)
        if data.split_method == "hash":  # which rows are held out must not hang on how many there are
            settings["val_fraction"] = _val_share(data)
        frame = data.reading.frame is not None
        return cls(settings, table.name, len(table), table.fingerprint, digest_parts(split.parts), frame)

    def state(self) -> dict[str, Any]:
        """Return plain types for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Any) -> Provenance | None:
        """Return what `state` gave; None of a checkpoint of an older version, which has nothing.

        Raises:
            CheckpointError: It is something else.
        """
        if state is None:
            return None
        kinds = {"settings": dict, "name": str, "rows": int, "fingerprint": str, "parts": str, "frame": bool}
        if not isinstance(state, dict) or any(not isinstance(state.get(name), kind) for name, kind in kinds.items()):
            raise CheckpointError("checkpoint: its data cannot be read; was it edited?")
        found = cls(**{name: state[name] for name in kinds})
        for name, value in found.settings.items():
            if not isinstance(name, str) or not _is_plain(value) or (name in PATHS and not _is_path(value)):
                raise CheckpointError(f"checkpoint: data setting {str(name)[:60]!r} cannot be used; was it edited?")
        if not found.name.isprintable():
            raise CheckpointError("checkpoint: the name of its data cannot be read; was it edited?")
        return found


def plain_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a data module as a checkpoint keeps them: plain values and absolute paths."""
    settings = {name: _plain(value) for name, value in arguments.items() if name not in HERE}
    for name in PATHS:
        if settings.get(name) is not None:
            settings[name] = os.path.abspath(os.path.expanduser(settings[name]))
    return settings


def data_settings(kept: Provenance, given: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the settings that a command takes from a checkpoint where nothing else is given.

    A path or a source that is given stands for the whole table, with its test part. What `predict` scores is another
    table, so it takes the columns of ids alone.

    Args:
        kept: Of the checkpoint.
        given: Arguments of the data module, with the usual defaults.
        command: fit, validate, test or predict.

    Raises:
        CheckpointError: The settings are of a newer version.
        DataError: There is no table to read.
    """
    unknown = sorted(set(kept.settings) - set(given))
    if any(kept.settings[name] is not None for name in unknown):
        raise CheckpointError(
            f"checkpoint: has data settings that this version does not know ({', '.join(unknown)[:100]})"
        )
    settings = {name: value for name, value in kept.settings.items() if name in given}
    named = given.get("path") is not None or given.get("source") != USUAL_SOURCE
    if command == "predict":
        if not named and (kept.frame or settings.get("path") is not None or settings.get("source") != USUAL_SOURCE):
            raise DataError("--data.path: must name the table whose rows are to be scored, got none")
        return {name: settings[name] for name in ("user", "item") if settings.get(name) is not None}
    if named:
        return {
            name: value for name, value in settings.items() if name not in ("path", "source", "test_path", "synthetic")
        }
    if kept.frame:
        raise DataError(
            f"--data.path: must name the table, since the checkpoint was trained on {kept.rows:,} rows in memory"
        )
    for name in PATHS:
        path = settings.get(name)
        if path is not None and not (os.path.isfile(path) or os.path.isdir(path)):
            raise DataError(
                f"--data.{name}: {_short(path)}, which the checkpoint was trained on, is not there; give the table by "
                f"--data.{name}"
            )
    return settings


def check_rows(kept: Provenance, data: RatingsDataModule, stage: Stage) -> None:
    """Refuse other data than a checkpoint was trained on where its rows could test, or be trained on by mistake.

    Rows are known to be new to the checkpoint where the table is the same, where it is the training table beside a
    test table, or where both splits go by the same hash.

    Args:
        kept: Of the checkpoint.
        data: What is to be used.
        stage: What for.

    Raises:
        DataError: The rows are others, or could have been trained on.
    """
    same = kept.fingerprint == data.table.fingerprint
    if same and kept.parts == digest_parts(data.split.parts):
        return
    table, then = data.table.name, f"{kept.rows:,} rows of {_short(kept.name)}"
    if stage == "fit" and not same and not data.other_data:
        raise DataError(
            f"{table}: must be the table that the checkpoint was trained on, {then}, but its {len(data.table):,} rows "
            "are others or in another order; name that table by --data.path, train anew without --ckpt_path, or go on "
            "with other rows by --data.other_data true (into a new run; needs --data.split hash, then and now)"
        )
    before, parts = parts_before(kept, data), data.split.parts
    held = {"test": (TEST,), "validate": (VAL,), "fit": (TEST, VAL)}[stage]
    if before is not None:
        for part, name, seen in ((TEST, "test", (TRAIN, VAL)), (VAL, "validation", (TRAIN,))):
            rows = parts == part
            leaked = int(np.count_nonzero(rows & np.isin(before, seen))) if part in held else 0
            if leaked:
                raise DataError(
                    f"{table}: the checkpoint was trained on {leaked:,} of {np.count_nonzero(rows):,} {name} rows, as "
                    f"the split is another ({_describe(data)} now, {_describe(kept)} then); leave the split's options "
                    "out, and the checkpoint's hold"
                )
        return
    if not any(np.any(parts == part) for part in held) or _by_same_hash(kept, data, stage):
        return
    raise DataError(
        f"{table}: its {'test' if stage == 'test' else 'validation'} part may hold rows that the checkpoint was "
        f"trained on, since its {len(data.table):,} rows are not the {then}, or in another order, and the split "
        f"({_describe(data)}) is drawn anew; give that table, or new rows beside it as --data.test_path, or train anew "
        "(without --ckpt_path) by --data.split hash, under which rows stay on their side when a table grows"
    )


def parts_before(kept: Provenance, data: RatingsDataModule) -> np.ndarray | None:
    """Return the part that every row of a table had when a checkpoint was trained: uint8 [rows]; None if not known.

    Rows that were not there are given TEST.
    """
    table = data.table
    rows = np.ones(len(table), dtype=bool)
    if kept.fingerprint != table.fingerprint:
        if table.test_rows is None:
            return None
        rows = ~table.test_rows
        table = replace(table.take(rows), test_rows=None)
        if kept.fingerprint != table.fingerprint:
            return None
    method: Any = kept.settings.get("split") or ("random" if table.test_rows is None else "predefined")
    try:
        split = split_table(table, method, **{name: kept.settings[name] for name in data.cut})
    except (DataError, KeyError, TypeError, ValueError):
        return None
    if digest_parts(split.parts) != kept.parts:  # numbers drawn otherwise, by another version
        return None
    parts = np.full(len(rows), TEST, dtype=np.uint8)
    parts[rows] = split.parts
    return parts


def _by_same_hash(kept: Provenance, data: RatingsDataModule, stage: Stage) -> bool:
    """Whether rows that are held out now were held out then, by the same hash."""
    then = kept.settings
    if then.get("split") != "hash" or data.split_method != "hash" or then.get("seed") != data.cut["seed"]:
        return False
    shares = [(data.cut["test_fraction"], then.get("test_fraction"))]
    if stage != "test":
        if then.get("val_split") not in ("same", "hash") or data.cut["val_split"] not in ("same", "hash"):
            return False
        shares.append((_val_share(data), then.get("val_fraction")))
    return all(isinstance(before, int | float) and now <= before for now, before in shares)


def _val_share(data: RatingsDataModule) -> float:
    """The share of the other rows that are in the validation part, as the split has decided."""
    given = data.cut["val_fraction"]
    if given is not None:
        return float(given)
    return VAL_FRACTION if data.split.sizes[VAL] else 0.0


def _describe(split: Provenance | RatingsDataModule) -> str:
    settings = split.settings
    method = settings.get("split") or ("random" if isinstance(split, Provenance) else split.split_method)
    return f"{str(method)[:20]}, seed {str(settings.get('seed'))[:20]}"


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _is_plain(value: Any, depth: int = 3) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(one, depth - 1) for one in value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(name, str) and _is_plain(one, depth - 1) for name, one in value.items())
    if isinstance(value, str):
        return len(value) <= 4096 and "://" not in value and "\0" not in value
    return value is None or isinstance(value, bool | int | float)


def _is_path(value: Any) -> bool:
    """Whether a value is None or an absolute path of this machine, and no share of another."""
    return value is None or (isinstance(value, str) and os.path.isabs(value) and value[:2] not in ("//", "\\\\"))


def _short(name: str) -> str:
    return name if len(name) <= 100 else f"...{name[-100:]}"
