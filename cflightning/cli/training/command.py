"""The commands `fit`, `validate`, `test` and `predict`: their help, which needs no torch, and their start."""

from __future__ import annotations

import contextlib
import io

from cflightning.cli.imports import importing_torch

DESCRIPTIONS = {
    "fit": "Train, test the best checkpoint, and write a run folder: checkpoints, metrics.json, config.yaml.",
    "validate": "Measure a checkpoint on the validation part.",
    "test": "Measure a checkpoint on the test part.",
    "predict": "Score every row of a table with a checkpoint, and write predictions.csv.",
}
OPTIONS = """\
data:
  --data.path PATH             table, folder or zip (default: MovieLens small)
  --data.table.user NAME       its columns, where they are not recognised: likewise item, rating, timestamp
  --data.split.method random   test part: random, hash, time, leave_last, per_user, users, predefined or kfold
  --data.split.test_fraction   share of test rows (default: 0.1)
  --data.split.val_fraction    share of validation rows, by which the best epoch is chosen (default: 0.05)
  --data.feedback ratings      or implicit: interactions without ratings
model:
  --model.dim N                latent factors (default: by the size of the table)
  --model.objective multitask  ratings and rankings; mse: ratings; ease, bce, bpr, softmax, ccl, ials or svd: rankings
  --model.l2 X                 L2 penalty on factors (default: adapted to the validation error)
  --model.learning_rate X      (default: by the number of epochs)
  --model.seed 0               of the initial parameters; --data.split.seed is that of the split
run:
  --trainer.max_epochs N       passes over the table
  --trainer.devices N          processes or GPUs; --trainer.accelerator cpu, gpu or auto
  --trainer.default_root_dir   where run folders are made (default: runs)
  --early_stopping.patience 3  epochs without improvement before training stops
  --ckpt_path PATH             a checkpoint or run folder to continue; last or best: of the newest run
  --config FILE                options as YAML, such as the config.yaml of a run; --print_config writes one
"""
MORE = """\
all options of a group:  {command} --data.help   --model.help EmbeddingDotTask   --trainer.help   --early_stopping.help
                         --checkpoint.help   --optimizer.help SGD   --lr_scheduler.help StepLR
all options:             {command} --help=all
"""
GROUPS = ("trainer", "early_stopping", "checkpoint", "last_checkpoint")
"""Groups of options for which jsonargparse has no help option."""


def run(args: list[str], started: float) -> int:
    """Run a training command, or print its help."""
    group = next((name for name in GROUPS if f"--{name}.help" in args), None)
    if group is None and not {"-h", "--help", "--help=all"}.isdisjoint(args[1:]):
        print(full_help(args[0]) if "--help=all" in args else short_help(args[0]), end="")
    elif args[1:] == ["--data.help"]:
        with importing_torch():
            from cflightning.cli.training.data_help import data_help
        print(data_help(), end="")
    elif group is not None:
        print(group_help(full_help(args[0]), group), end="")
    else:
        with importing_torch():
            from cflightning.cli.training.cli import TrainingCLI
        TrainingCLI(args, started)
    return 0


def short_help(command: str) -> str:
    """Return the help of a command on one screen: its most used options, and how to see the others."""
    usage = f"usage: python -m cflightning {command} [options]\n\n{DESCRIPTIONS[command]}\n\n"
    return f"{usage}{OPTIONS}\n{MORE.format(command=command)}"


def full_help(command: str) -> str:
    """Return the help of all options, as jsonargparse prints it."""
    with importing_torch():
        from cflightning.cli.training.cli import TrainingCLI
    out = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):
        TrainingCLI([command, "--help"])
    return out.getvalue()


def group_help(text: str, group: str) -> str:
    """Return the part of a help text that documents a group of options.

    Args:
        text: The help of all options.
        group: Name of the group, without dashes.
    """
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("  --"):
            inside = line.startswith((f"  --{group}.", f"  --{group} "))
        elif line.strip() and not line.startswith("   "):
            inside = False
        if inside:
            lines.append(line)
    return "\n".join(lines) + "\n"
