"""Wrong options, described in one line: the problem, the possible values, and the option that was probably meant."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Sequence

from cflightning.utils.text import truncate

ALIASES = {
    "batch": "data.batch_size", "checkpoint": "ckpt_path", "ckpt": "ckpt_path", "csv": "data.path",
    "dataset": "data.path", "device": "trainer.accelerator", "embedding_dim": "model.dim",
    "epoch": "trainer.max_epochs", "epochs": "trainer.max_epochs", "factors": "model.dim", "file": "data.path",
    "gpu": "trainer.accelerator",
    "gpus": "trainer.devices", "input": "data.path", "iterations": "trainer.max_epochs", "loss": "model.objective",
    "lr": "model.learning_rate", "n_epochs": "trainer.max_epochs", "n_factors": "model.dim",
    "num_epochs": "trainer.max_epochs", "out": "trainer.default_root_dir", "output": "trainer.default_root_dir",
    "output_dir": "trainer.default_root_dir", "rank": "model.dim", "ratings": "data.path", "reg": "model.l2",
    "regularization": "model.l2", "resume": "ckpt_path", "run_dir": "trainer.default_root_dir", "seed": "model.seed",
    "columns": "data.table.column_names", "names": "data.table.column_names",
    "sep": "data.table.delimiter", "separator": "data.table.delimiter", "test_size": "data.split.test_fraction",
}  # fmt: skip
"""Names of options in other programs -> the option."""
GROUPS = {
    "data": "data.path", "data.split": "data.split.method", "data.table": "data.table.user",
    "trainer": "trainer.max_epochs",
}  # fmt: skip
"""Groups to which a user may give a value -> the option that is probably meant."""
TYPE_NAMES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "dict": "a mapping",
    "tuple": "a list in brackets", "list": "a list in brackets", "NoneType": "null",
}  # fmt: skip
"""Type of Python -> its description."""
MAX_QUOTED = 60
"""Largest number of characters of a quoted value."""


def explain(message: str, options: Iterable[str]) -> str:
    """Turn an error message of jsonargparse into one line.

    Args:
        message: Message of its ArgumentError, of one or many lines.
        options: Names of all options, without dashes.

    Returns:
        A line that names the option.
    """
    names = [option.replace(".init_args.", ".") for option in options]
    keys = re.findall(r'Parser key "([^"]+)"', message)
    unknown = re.search(r"unrecognized arguments: (.*)", message, re.IGNORECASE)
    if unknown:
        words = unknown[1].split()
        name = next((word for word in words if word.startswith("-")), None)
        if name is None:
            word = truncate(words[0], MAX_QUOTED)
            return f"{word}: is not an option; options begin with --, as --data.path {word}"
        name = name.partition("=")[0].lstrip("-")
        return _no_option(f"{keys[0]}.{name}" if keys else name, names)  # inside a class without the class's own key
    in_file = re.search(r"does not accept option '([^']+)'", message)
    if in_file:
        return _no_option(in_file[1].replace(".init_args.", "."), names)
    path = ".".join(key for key, before in zip(keys, [None, *keys], strict=False) if key != before)
    path = path.replace(".init_args.", ".")
    not_accepted = re.search(r"Option '([^']+)' is not accepted", message)
    if not_accepted:
        return _no_option(f"{path}.{not_accepted[1].replace('init_args.', '')}", names)
    value = re.search(r"(?:Given|Got) value: (?!NestedArg)(.*)", message)
    expected = re.findall(r"Expected an? ((?:typing\.)?Literal\[.*?\]|<class '[^']+'>)", message)
    group = path if path in GROUPS else path.partition(".")[0]
    if group in GROUPS and ((path == group and value) or "Unable to load config" in message):
        return f"--{group}: is a group of options; did you mean --{GROUPS[group]}?"
    if path and value and "dot import path" in message:
        return (
            f"--{path}: must name a class, got '{truncate(value[1], MAX_QUOTED)}'; fit --help=all shows its base class"
        )
    if path and value and expected:
        return _bad_value(path, value[1], expected)
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    text = re.sub(r'^Parser key "([^"]+)":?', r"--\1:", lines[0] if len(lines) == 1 else " ".join(lines))
    return re.sub(r"^argument (--[\w.]+)", r"\1", text)[:200]


def _no_option(name: str, options: Sequence[str]) -> str:
    meant = suggest(name, options)
    return f"--{name}: is not an option" + (f"; did you mean --{meant}?" if meant else "; fit --help=all lists them")


def suggest(name: str, options: Sequence[str]) -> str | None:
    """Return the option that a wrong name probably means; None if none is similar."""
    group, _, last = name.rpartition(".")
    if last in ALIASES and ALIASES[last] in options and (not group or ALIASES[last].startswith(f"{group}.")):
        return ALIASES[last]
    if near := difflib.get_close_matches(name, [*options, *GROUPS], 1, 0.9):
        return GROUPS.get(near[0], near[0])
    # The same name in another group; model and data come first.
    same = [option for option in options if option.rpartition(".")[2] == last]
    same.sort(key=lambda option: (not option.startswith("model."), not option.startswith("data.")))
    if same:
        return same[0]
    near = difflib.get_close_matches(name, options, 1, 0.75)
    if near:
        return near[0]
    ends = {option.rpartition(".")[2]: option for option in reversed(options)}
    near = difflib.get_close_matches(last, ends, 1, 0.75)
    return ends[near[0]] if near else None


def _bad_value(path: str, value: str, expected: Sequence[str]) -> str:
    choices: list[str] = []
    types: list[str] = []
    for kind in expected:
        if "Literal" in kind:
            choices += [str(choice) for choice in ast.literal_eval(kind[kind.index("[") :])]
        elif kind != "<class 'NoneType'>" or len(expected) == 1:
            name = kind.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
            types.append(TYPE_NAMES.get(name, name))
    allowed = [*dict.fromkeys(choices), *dict.fromkeys(types)]
    listed = allowed[0] if len(allowed) == 1 else f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    near = difflib.get_close_matches(value, choices, 1, 0.5)
    return f"--{path}: must be {listed}, got '{truncate(value, MAX_QUOTED)}'" + (
        f"; did you mean {near[0]}?" if near else ""
    )
