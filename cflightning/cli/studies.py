"""Studies: the many fits of `kfold` or `tune` in one folder, which the same command continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cflightning import __version__
from cflightning.cli.run_folders import first_process, sweep_runs
from cflightning.data.table import RatingTable
from cflightning.errors import ConfigError
from cflightning.utils.files import make_folder, make_numbered_folder, write_json
from cflightning.utils.locks import LOCK, lock_folder, wait_for_lock


def refuse_options(config: Namespace, checkpoint: Path | None, reasons: Mapping[str, str]) -> None:
    """Refuse options that a fit of a study cannot have.

    Args:
        config: Configuration of the fit.
        checkpoint: The file of `--ckpt_path`.
        reasons: Option -> the reason against it, for the message.

    Raises:
        ConfigError: Names the first such option.
    """
    for name, reason in reasons.items():
        value = checkpoint if name == "ckpt_path" else config[name]
        if value:
            raise ConfigError(f"--{name}: is {value}, but {reason}; leave it out")


def shared_options(config: Namespace) -> dict[str, Any]:
    """Return the options that determine the metrics of all fits of a study."""
    options: dict[str, Any] = config.clone().as_dict()
    options.pop("config", None)  # the content of the files is in the other options
    for name in ("default_root_dir", "enable_progress_bar", "enable_model_summary"):
        del options["trainer"][name]
    return options


def fingerprint(options: Mapping[str, object], table: RatingTable) -> str:
    """Return a digest of everything that determines the metrics: version, options and the rows of the table."""
    digest = hashlib.sha256(json.dumps({"version": __version__, **options}, sort_keys=True, default=str).encode())
    digest.update(table.fingerprint.encode())
    return digest.hexdigest()[:40]


def open_study(root: Path, report: str, fingerprint: str, locks: ExitStack, advice: str = "") -> Path:
    """Find the folder of a study by the fingerprint in its report, or make one, and lock it.

    Args:
        root: Folder of the runs.
        report: Name of the report, such as `tune.json`; the folder is then `root/tune_N`.
        fingerprint: Digest of the study.
        locks: Holds the lock.
        advice: Alternative to waiting for another process, for the message.

    Returns:
        The folder; in processes other than the first, which write nothing, it is missing if the study is new.

    Raises:
        ConfigError: Another process works on the study.
    """
    name = Path(report).stem

    def find() -> Path | None:
        reports = (path for path in sorted(root.glob(f"{name}_*/{report}")) if _fingerprint(path) == fingerprint)
        return next((path.parent for path in reports), None)

    if not first_process():
        return find() or root / name
    make_folder(root)
    sweep_runs(root)
    with wait_for_lock(root / LOCK):  # two commands at once must not make two folders
        folder = find()
        if folder is None:
            folder = make_numbered_folder(root, name)
            write_json(folder / report, {"fingerprint": fingerprint})
        locks.enter_context(lock_folder(folder, advice))
    return folder


def _fingerprint(report: Path) -> object:
    """Return the fingerprint in a report; None for the file of another program, or an edited one."""
    try:
        return json.loads(report.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
