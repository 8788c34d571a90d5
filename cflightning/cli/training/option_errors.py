"""Mistakes in options, told in one line: what is wrong, which values there are, and what was perhaps meant."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Sequence

SHORT = {
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
"""Names that other programs have for an option -> the option."""
GROUPS = {
    "data": "data.path", "data.split": "data.split.method", "data.table": "data.table.user",
    "trainer": "trainer.max_epochs",
}  # fmt: skip
"""Groups that are perhaps given a value of their own -> the option that is meant."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "tuple": "a list in "
         "brackets", "list": "a list in brackets", "dict": "a mapping", "NoneType": "null"}  # fmt: skip
LONGEST = 60
"""Characters of a value that are quoted."""


def explain(message: str, options: Iterable[str]) -> str:
    """Turn what jsonargparse says of a mistake into a line.

    Args:
        message: of its ArgumentError, of one line or of many.
        options: names of all options, without dashes; `init_args` in them are left out.

    Returns:
        A line that names the option.
    """
    known = [option.replace(".init_args.", ".") for option in options]
    keys = re.findall(r'Parser key "([^"]+)"', message)
    unknown = re.search(r"unrecognized arguments: (.*)", message, re.IGNORECASE)
    if unknown:
        given = unknown[1].split()
        name = next((word for word in given if word.startswith("-")), None)
        if name is None:
            return f"{_short(given[0])}: is no option; options begin with --, as --data.path {_short(given[0])}"
        name = name.partition("=")[0].lstrip("-")
        return _no_option(f"{keys[0]}.{name}" if keys else name, known)  # inside a class without the class's own key
    in_file = re.search(r"does not accept option '([^']+)'", message)
    if in_file:
        return _no_option(in_file[1].replace(".init_args.", "."), known)
    path = ".".join(key for key, before in zip(keys, [None, *keys], strict=False) if key != before)
    path = path.replace(".init_args.", ".")
    not_accepted = re.search(r"Option '([^']+)' is not accepted", message)
    if not_accepted:
        return _no_option(f"{path}.{not_accepted[1].replace('init_args.', '')}", known)
    value = re.search(r"(?:Given|Got) value: (?!NestedArg)(.*)", message)
    expected = re.findall(r"Expected an? ((?:typing\.)?Literal\[.*?\]|<class '[^']+'>)", message)
    group = path if path in GROUPS else path.partition(".")[0]
    if group in GROUPS and ((path == group and value) or "Unable to load config" in message):
        return f"--{group}: is a group of options; did you mean --{GROUPS[group]}?"
    if path and value and "dot import path" in message:
        return f"--{path}: must name a class, got '{_short(value[1])}'; fit --help=all says of which kind"
    if path and value and expected:
        return _bad_value(path, value[1], expected)
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    text = re.sub(r'^Parser key "([^"]+)":?', r"--\1:", lines[0] if len(lines) == 1 else " ".join(lines))
    return re.sub(r"^argument (--[\w.]+)", r"\1", text)[:200]


def _no_option(name: str, known: Sequence[str]) -> str:
    meant = suggest(name, known)
    return f"--{name}: is no option" + (f"; did you mean --{meant}?" if meant else "; fit --help=all shows all of them")


def suggest(name: str, known: Sequence[str]) -> str | None:
    """The option that a wrong name most likely means; None where none is near."""
    group, _, last = name.rpartition(".")
    if last in SHORT and SHORT[last] in known and (not group or SHORT[last].startswith(f"{group}.")):
        return SHORT[last]
    if near := difflib.get_close_matches(name, [*known, *GROUPS], 1, 0.9):
        return GROUPS.get(near[0], near[0])
    # The same name in another group, those of the model and the data first.
    same = [option for option in known if option.rpartition(".")[2] == last]
    same.sort(key=lambda option: (not option.startswith("model."), not option.startswith("data.")))
    if same:
        return same[0]
    near = difflib.get_close_matches(name, known, 1, 0.75)
    if near:
        return near[0]
    ends = {option.rpartition(".")[2]: option for option in reversed(known)}
    near = difflib.get_close_matches(last, ends, 1, 0.75)
    return ends[near[0]] if near else None


def _bad_value(path: str, value: str, expected: Sequence[str]) -> str:
    choices: list[str] = []
    kinds: list[str] = []
    for one in expected:
        if "Literal" in one:
            choices += [str(choice) for choice in ast.literal_eval(one[one.index("[") :])]
        elif one != "<class 'NoneType'>" or len(expected) == 1:
            name = one.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
            kinds.append(KINDS.get(name, name))
    allowed = [*dict.fromkeys(choices), *dict.fromkeys(kinds)]
    listed = allowed[0] if len(allowed) == 1 else f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    near = difflib.get_close_matches(value, choices, 1, 0.5)
    return f"--{path}: must be {listed}, got '{_short(value)}'" + (f"; did you mean {near[0]}?" if near else "")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
