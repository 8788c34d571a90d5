"""A wrong option is reported in one line, with the option that was probably meant."""

import pytest

from cflightning.__main__ import main as front_door


def said(capsys, *args):
    """Return the only line of a command that ends with 2."""
    assert front_door([*args]) == 2
    out, err = capsys.readouterr()
    lines = (out + err).strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("cflightning: ")


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["--dim", "32"], "--model.dim"),
        (["--epochs=3"], "--trainer.max_epochs"),
        (["--lr", "0.1"], "--model.learning_rate"),
        (["--batch_size", "64"], "--data.batch_size"),
        (["--seed", "1"], "--model.seed"),
        (["--modle.dim", "3"], "--model.dim"),
        (["--model.dmi", "3"], "--model.dim"),
        (["--data.splt", "random"], "--data.split.method"),
        (["--data.splt.seed", "1"], "--data.split.seed"),
        (["--data.table.delimter", ";"], "--data.table.delimiter"),
        (["--trainer.max_epoch", "3"], "--trainer.max_epochs"),
        (["--ckpt", "last"], "--ckpt_path"),
    ],
)
def test_a_similar_option_is_suggested(args, meant, capsys):
    given = args[0].partition("=")[0]
    assert said(capsys, "fit", "--data.path", "x", *args) == f"{given}: is not an option; did you mean {meant}?"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--data.split", "kfold"], "--data.split: is a group of options; did you mean --data.split.method[?]"),
        (["--data.table", "x"], "--data.table: is a group of options; did you mean --data.table.user[?]"),
        (["--data.split.seed", "x"], "--data.split.seed: must be a whole number, got 'x'"),
        (["--data.split.leave_n", "0"], "--data.split.leave_n: must be at least 1, got 0"),
        (
            ["--data.split.method", "randm"],
            r"--data.split.method: must be random, .* or kfold, got 'randm'; did you mean random\?",
        ),
        (
            ["--model.objective", "mes"],
            r"--model.objective: must be one of mse, .*, multitask, got 'mes'; did you mean mse\?",
        ),
        (["--model.dim", "3.5"], "--model.dim: must be a whole number, got '3.5'"),
        (["--model.l2", "x" * 500], "--model.l2: must be a number, got 'x{60}…'"),
        (
            ["--trainer.enable_progress_bar", "maybe"],
            "--trainer.enable_progress_bar: must be true or false, got 'maybe'",
        ),
        (["--optimizer", "Foo"], "--optimizer: must name a class, got 'Foo'; .*"),
        (["ratings.csv"], "ratings.csv: is not an option; options begin with --, as --data.path ratings.csv"),
        (["--qwertz", "1"], "--qwertz: is not an option; fit --help=all lists them"),
        (["--config", "nowhere.yaml"], "--config: File does not exist: .*nowhere.yaml'"),
        (["--data", "ratings.csv"], r"--data: is a group of options; did you mean --data.path\?"),
        (["--data", __file__], r"--data: is a group of options; did you mean --data.path\?"),
        (["--trainer", "3"], r"--trainer: is a group of options; did you mean --trainer.max_epochs\?"),
        (["--model.dim"], "--model: expected one argument"),
    ],
)
def test_a_wrong_value_is_reported_with_the_possible_ones(args, line, capsys):
    import re

    found = said(capsys, "fit", *args)
    assert re.fullmatch(line, found), found
    assert len(found) < 250


@pytest.mark.parametrize("command", ["test", "predict", "kfold", "tune"])
def test_other_commands_suggest_options_as_well(command, capsys):
    assert said(capsys, command, "--dim", "3") == "--dim: is not an option; did you mean --model.dim?"


def test_options_in_files_are_checked_as_well(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("modle:\n  dim: 3\n")
    assert said(capsys, "fit", "--config", str(config)) == "--modle.dim: is not an option; did you mean --model.dim?"
    config.write_text("model: {init_args: {dmi: 3}}\n")
    assert said(capsys, "fit", "--config", str(config)) == "--model.dmi: is not an option; did you mean --model.dim?"
