"""Help on one screen and by groups; output into a file, and with closed streams."""

import contextlib
import io
import re
import subprocess
import sys

import pytest

from cflightning.__main__ import main as front_door
from cflightning.cli.training.cli import TrainingCLI
from cflightning.cli.training.command import DESCRIPTIONS, GROUPS


@pytest.fixture(scope="module")
def whole():
    """All of fit's help."""
    out = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):
        TrainingCLI(["fit", "--help"])
    return out.getvalue()


@pytest.mark.parametrize("command", DESCRIPTIONS)
def test_help_fits_on_two_screens_and_loads_no_torch(command):
    code = (
        "import sys; from cflightning.__main__ import main; status = main(sys.argv[1:]);"
        "sys.exit(status or bool({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    assert f"python -m cflightning {command} [options]" in lines[0]


def test_help_names_options_that_exist(whole, capsys):
    assert front_door(["fit", "--help"]) == 0
    names = {
        name.removesuffix(".help") for name in re.findall(r"--([a-z_]+(?:\.[a-z_0-9]+)?)", capsys.readouterr().out)
    }
    assert "model.dim" in names
    data_and_model = io.StringIO()
    for group in (["--data.help"], ["--model.help", "EmbeddingDotTask"]):
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(data_and_model):
            TrainingCLI(["fit", *group])
    for name in names - {"help"}:
        assert f"--{name}" in whole + data_and_model.getvalue(), name


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_is_that_of_the_group(group, capsys):
    assert front_door(["fit", f"--{group}.help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    options = [line.split()[0] for line in lines if line.startswith("  --")]
    assert len(options) > 3
    assert all(option == f"--{group}" or option.startswith(f"--{group}.") for option in options)


def test_help_all_lists_all_options(whole, capsys):
    assert front_door(["fit", "--help=all"]) == 0
    assert capsys.readouterr().out == whole


@pytest.mark.slow
def test_a_piped_log_has_one_line_for_each_epoch(movielens, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cflightning", "fit", "--data.path", str(movielens("ml-1m", 60, 40)),
         "--model.objective", "mse", "--trainer.max_epochs", "3", "--trainer.default_root_dir", str(tmp_path)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert re.findall(r"^epoch (\d) of 3: train/loss \S+, \S+ s$", said, re.MULTILINE) == ["1", "2", "3"]
    assert re.search(r"^EmbeddingDotTask on \w+: [\d,]+ parameters$", said, re.MULTILINE)
    for noise in ("\r", "it/s", "FLOPs", "ensemble", "Seed set", "TPU", "Restoring", "Tip", "━"):
        assert noise not in said
    assert len(said.splitlines()) < 30


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_closed_streams_do_not_end_a_fit(movielens, tmp_path, closed):
    script = "exec " + " ".join(f"{handle}>&-" for handle in closed.split()) + '; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "cflightning", "fit", "--data.path",
         str(movielens("ml-1m")), "--model.objective", "mse", "--model.dim", "4", "--trainer.max_epochs", "1",
         "--trainer.enable_progress_bar", "true", "--trainer.default_root_dir", str(tmp_path)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "version_0" / "metrics.json").is_file()


def test_the_data_options_fit_on_two_screens_in_groups(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert front_door(["fit", "--data.help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 100
    options = [line.split()[0] for line in lines if line.startswith("  --")]
    assert {"--data.path", "--data.table.delimiter", "--data.split.method"} <= {*options}
