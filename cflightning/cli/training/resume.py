"""Runs that start from a checkpoint: which file `--ckpt_path` names, and which settings are taken from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from cflightning.checkpoint.format import Content, locate_checkpoint, refuse_address
from cflightning.checkpoint.loading import task_class
from cflightning.checkpoint.settings import (
    DESCRIBED,
    check_names,
    check_no_files,
    foreign_classes,
    plain_settings,
)
from cflightning.data.provenance import DATA_MODULE_NAMES, Provenance, data_settings
from cflightning.errors import CheckpointError, ConfigError
from cflightning.tasks.base import NetworkTask

PATH_OPTIONS = (
    "--ckpt_path", "--data.path", "--data.test_path", "--data.init_args.path", "--data.init_args.test_path",
)  # fmt: skip


def refuse_empty_paths(args: Sequence[str]) -> None:
    """Refuse a path option with an empty value, as from an unset shell variable: it would count as absent.

    Raises:
        ConfigError: Names the first such option.
    """
    for index, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        value = value if equals else args[index + 1] if index + 1 < len(args) else ""
        if option in PATH_OPTIONS and value.strip().lower() in ("", "null", "~"):
            what = "a run or a checkpoint" if option == "--ckpt_path" else "a file or folder"
            advice = "leave it out" + (f", or write ./{value}" if value.strip() else "")
            raise ConfigError(f"{option.replace('.init_args', '')}: must name {what}, got {value!r}; {advice}")


def find_checkpoint(value: str, root: Path, folder: str | None) -> Path:
    """Return the file that ``--ckpt_path`` names.

    Args:
        value: A checkpoint or run folder, or `last` or `best`: the checkpoint of the newest run below `root`.
        root: Folder of the runs.
        folder: The checkpoint folder, if the options name one.

    Raises:
        CheckpointError: There is no such checkpoint, or the value is an address.
    """
    if value in ("last", "best"):
        pattern = f"checkpoints/{value}.ckpt"
        paths = [Path(folder) / f"{value}.ckpt"] if folder else [*root.glob(pattern), *root.glob(f"*/{pattern}")]
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise CheckpointError(f"--ckpt_path {value}: needs a run to continue, but {folder or root} has none")
        return max(paths, key=lambda path: path.stat().st_mtime)
    refuse_address(value)
    return locate_checkpoint(Path(value)) if Path(value).is_dir() else Path(value)


def data_defaults(provenance: Provenance, config: Namespace, command: str) -> dict[str, object]:
    """Return the data settings of a checkpoint as defaults of `--data`; empty where none of them applies.

    Args:
        provenance: The data of the checkpoint.
        config: The data options of the user, which take precedence.
        command: The subcommand.
    """
    if config.class_path not in DATA_MODULE_NAMES:
        return {}
    settings = data_settings(provenance, config.init_args.as_dict(), command)
    return {"class_path": DATA_MODULE_NAMES[0], "init_args": settings} if settings else {}


def task_config(content: Content, source: str, command: str, config: Namespace) -> dict[str, object]:
    """Return the task of a checkpoint as a configuration: `model` and, for a fit, its optimiser and schedule.

    Args:
        content: A loaded checkpoint.
        source: Its file, for messages.
        command: The subcommand.
        config: The options of the subcommand; an optimiser or schedule of the user takes precedence.

    Raises:
        CheckpointError: A setting is not plain data, unknown to the task, or names a class that is not torch's.
    """
    kind, settings = task_class(content, source, NetworkTask), plain_settings(content, source)
    check_names(settings, kind, source)
    check_no_files(settings, kind, source)
    described: dict[str, object] = {}
    classes = foreign_classes(content)
    for name in DESCRIBED:  # linked into the model, so the value has to be set where the link starts
        description = settings.pop(name, None)
        if command != "fit" or config.get(name) is not None:
            continue
        if name in classes:
            raise CheckpointError(
                f"{source}: names the {name} {classes[name]}, which is not one of torch's; give it again by --{name}"
            )
        if description:
            described[name] = description
    return {"model": {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": settings}, **described}


def planned_epochs(run: Path) -> int | None:
    """Return the epochs that a run was started with, from its config.yaml; None without such an entry."""
    try:
        text = (run / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    match = re.search(r"^trainer:\n(?:  .*\n)*?  max_epochs: (\d{1,9})$", text, re.MULTILINE)
    return int(match[1]) if match else None
