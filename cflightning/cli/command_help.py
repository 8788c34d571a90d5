"""Help of the training commands on one screen; the rest by groups of options."""

from __future__ import annotations

COMMANDS = {
    "fit": "Train, test the best checkpoint, and write a run folder: checkpoints, metrics.json, config.yaml.",
    "validate": "Measure a checkpoint on the validation part.",
    "test": "Measure a checkpoint on the test part.",
    "predict": "Score every row of a table with a checkpoint; writes predictions.csv.",
}
OPTIONS = """\
data:
  --data.path PATH             table, folder or zip (MovieLens small if left out)
  --data.user NAME ...         its columns, where they cannot be guessed: user, item, rating, timestamp
  --data.split random          rows that test: random, hash, time, leave_last, per_user, users, predefined or kfold
  --data.test_fraction 0.1     how many of them
  --data.val_fraction 0.05     rows that choose the best epoch
  --data.feedback ratings      or choices: what was chosen, without ratings
model:
  --model.dim N                latent factors (by the size of the table)
  --model.objective multitask  both ratings and lists; mse for ratings; bce, bpr, softmax, ccl, ials or svd for lists
  --model.l2 X                 penalty on factors (chosen by validation rows)
  --model.learning_rate X      (by the number of epochs)
  --model.seed 0               of the start; --data.seed is that of the split
run:
  --trainer.max_epochs N       passes over the table
  --trainer.devices N          processes or GPUs; --trainer.accelerator cpu, gpu or auto
  --trainer.default_root_dir   where run folders are made (runs)
  --early_stopping.patience 3  epochs without a better one, after which training stops
  --ckpt_path PATH             a checkpoint or run folder to go on with; last or best: of the newest run
  --config FILE                options as YAML, such as the config.yaml of a run; --print_config writes one
"""
MORE = """\
all options of a group:  {command} --data.help   --model.help EmbeddingDotTask   --trainer.help   --early_stopping.help
                         --checkpoint.help   --optimizer.help SGD   --lr_scheduler.help StepLR
all of them:             {command} --help=all
"""
GROUPS = ("trainer", "early_stopping", "checkpoint", "last_checkpoint")
"""Groups of options that jsonargparse shows among all others alone."""


def short_help(command: str) -> str:
    """The help of a command: its most used options, and how to see the others."""
    usage = f"usage: python -m cflightning {command} [options]\n\n{COMMANDS[command]}\n\n"
    return f"{usage}{OPTIONS}\n{MORE.format(command=command)}"


def group_help(text: str, group: str) -> str:
    """The part of a command's whole help that documents a group of options.

    Args:
        text: the whole help.
        group: name of the group, without dashes.
    """
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("  --"):
            inside = line.startswith((f"  --{group}.", f"  --{group} "))
        elif line.strip() and not line.startswith("   "):
            inside = False
        if inside:
            kept.append(line)
    return "\n".join(kept) + "\n"
