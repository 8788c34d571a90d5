"""Options of `tune`, without torch."""

import subprocess
import sys

import pytest

from cflightning.__main__ import main as front_door
from cflightning.cli.tune.options import Options, parse


def test_help_needs_no_torch_and_describes_the_command():
    code = (
        "import sys\nfrom cflightning.__main__ import main\ntry: main(['tune', '--help'])\n"
        "except SystemExit as end: sys.exit(end.code or bool({'torch', 'numpy', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done
    for word in (
        "--trials N",
        "--jobs J",
        "--seconds S",
        "--seed N",
        "low:",
        "choices:",
        "best.yaml",
        "options of fit",
    ):
        assert word in " ".join(done.stdout.split())


def test_options_are_separated_from_those_of_fit():
    args = ["--data.path", "x", "--trials", "3", "--model.margin", "-1", "--jobs=2", "--seconds", "1.5", "--seed", "4"]
    assert parse(args) == (["--data.path", "x", "--model.margin", "-1"], Options(3, 2, 1.5, 4))
    assert parse(["--model.seed", "3", "--seed_everything", "1"]) == (
        ["--model.seed", "3", "--seed_everything", "1"], Options(30, 1, None, 0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trials", "0"], "--trials: must be at least 1, got 0"),
        (["--jobs", "0"], "--jobs: must be at least 1, got 0"),
        (["--seed", "-1"], "--seed: must be at least 0, got -1"),
        (["--seconds", "0"], "--seconds: must be above 0, got 0"),
        (["--seconds", "nan"], "--seconds: must be above 0, got nan"),
    ],
)
def test_numbers_out_of_range(args, message, capsys):
    assert front_door(["tune", *args]) == 2
    assert capsys.readouterr().err == f"cflightning: {message}\n"


def test_without_optuna_one_line_names_the_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert front_door(["tune"]) == 2
    assert capsys.readouterr().err == (
        "cflightning: tune: needs optuna, which is not installed; pip install 'cflightning[tune]'\n"
    )
