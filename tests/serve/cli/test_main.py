"""The main program: exit codes, errors in one line, help, standard streams."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cflightning_serve import __version__
from cflightning_serve.cli import commands
from cflightning_serve.cli.commands import find_commands


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["recommend", "B", "--user", "abc"], "--user: ids are integers in this bundle, got 'abc'"),
        (["recommend", "B", "--user", "1.0"], "got '1.0'"),
        (["recommend", "B", "--user", "1_0"], "got '1_0'"),
        (["recommend", "B", "--user", "٣"], "got '٣'"),
        (["recommend", "B", "--user", "9" * 20], "must fit into 64 bits"),
        (["recommend", "B", "--user", "9" * 9999], "ids are integers"),
        (["recommend", "B", "--user", "1", "--k", "0"], "k: must be an integer from 1, got 0"),
        (["recommend", "B", "--user", "1", "--k", "x"], "argument --k: invalid int value: 'x'"),
        (["recommend", "B", "--user", "1", "--threads", "0"], "threads: must be an integer from 1"),
        (["recommend", "B", "--user", "1", "--exclude", "x"], "--exclude: ids are integers"),
        (["recommend", "B"], "required: --user"),
        (["recommend"], "required: BUNDLE"),
        ([], "required: COMMAND"),
        (["guess", "B"], "invalid choice: 'guess'"),
        (["score", "B"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--user", "1"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--pairs", "-", "--user", "1", "--item", "2"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--pairs", "-", "--item", "2"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--pairs", "/nowhere.csv"], "/nowhere.csv: cannot be read: No such file"),
        (["similar", "B", "--item", "99999"], "items must be known"),
    ],
)
def test_an_invalid_request_is_one_line_and_exit_code_2(run, bundle, arguments, match, one_line):
    code, out, err = run(*(bundle if word == "B" else word for word in arguments))
    assert (code, out) == (2, "")
    assert match in one_line(err)


@pytest.mark.parametrize("arguments", [["info"], ["recommend", "--user", "1"], ["similar", "--item", "1"]])
def test_an_invalid_bundle_is_exit_code_1(run, copy, arguments, one_line):
    (copy / "weights.bin").write_bytes(b"")
    code, out, err = run(arguments[0], copy, *arguments[1:])
    assert (code, out) == (1, "")
    assert "weights.bin: must have" in one_line(err)
    code, _, err = run(arguments[0], copy / "absent", *arguments[1:])
    assert code == 1
    assert "does not exist" in one_line(err)


def test_no_verify_skips_the_digests(run, copy):
    data = bytearray((copy / "weights.bin").read_bytes())
    data[0] ^= 1
    (copy / "weights.bin").write_bytes(data)
    assert run("info", copy)[0] == 1
    assert run("info", copy, "--no-verify")[0] == 0
    assert run("recommend", copy, "--user", 10, "--no-verify", "--threads", 2)[0] == 0


@pytest.fixture
def dashed(bundles, string_tables, tmp_path):
    """Tables whose ids look like options, and their bundle."""
    users = np.array(["-5ccd", "--help", "-x1"] + [f"u{n}" for n in range(len(string_tables.user_ids) - 3)], object)
    items = np.array(["-i0", "--json"] + [f"i{n}" for n in range(2, len(string_tables.item_ids))], object)
    tables = bundles.replace(string_tables, user_ids=users, item_ids=items, titles=None)
    return tables, bundles.write_bundle(tmp_path / "dashed", tables)


def test_ids_can_look_like_options(run, dashed):
    tables, folder = dashed
    arguments = ["--user=-5ccd", "--user=--help", "--user", "u0", "u1", "--exclude=-i0", "--exclude=--json", "--json"]
    code, out, err = run("recommend", folder, *arguments, "--k", 3)
    assert (code, err) == (0, "")
    recommended = {row["user"]: [item["item"] for item in row["items"]] for row in json.loads(out)["users"]}
    wanted = ["-5ccd", "--help", "u0", "u1"]
    assert recommended == {user: tables.recommend(user, 3, ["-i0", "--json"]) for user in wanted}
    code, out, _ = run("score", folder, "--user=-x1", "--item=-i0", "--item=--json", "--json")
    assert [(row["user"], row["item"]) for row in json.loads(out)["pairs"]] == [("-x1", "-i0"), ("-x1", "--json")]
    assert [row["item"] for row in json.loads(run("similar", folder, "--item=-i0", "--json")[1])["items"]] == ["-i0"]


@pytest.mark.parametrize("arguments", [["--user", "-5ccd"], ["--user", "u0", "-5ccd"]])
def test_an_id_that_is_parsed_as_an_option_is_explained(run, dashed, arguments, one_line):
    code, _, err = run("recommend", dashed[1], *arguments)
    assert code == 2
    assert "--user=-5ccd" in one_line(err)


def test_help_and_version_are_printed(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "recommend BUNDLE --user 42 --k 10" in out
    assert run("--version")[:2] == (0, f"cflightning_serve {__version__}\n")


@pytest.mark.parametrize("command", find_commands(), ids=lambda command: command.name)
def test_every_command_has_a_help_page_with_an_example(run, command):
    code, out, _ = run(command.name, "--help")
    assert code == 0
    assert f"example:\n  python -m cflightning_serve {command.name} BUNDLE" in out


def test_the_commands_are_those_of_the_folder():
    files = Path(commands.__file__).parent.glob("[!_]*.py")
    assert [command.name for command in find_commands()] == sorted(file.stem.replace("_", "-") for file in files)


def process(*arguments, environment, **options):
    return subprocess.run(
        [sys.executable, "-m", "cflightning_serve", *map(str, arguments)],
        env=environment,
        capture_output=True,
        check=False,
        **options,
    )


def test_the_package_runs_as_a_process(bundle, scorer, environment, one_line):
    done = process("recommend", bundle, "--user", 30, "--k", 3, "--json", environment=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    items = [row["item"] for row in json.loads(done.stdout)["users"][0]["items"]]
    assert items == scorer.recommend(30, 3).items.tolist()
    done = process("score", bundle, "--pairs", "-", environment=environment, input=b"user,item\n30,x\n")
    assert done.returncode == 2
    assert one_line(done.stderr.decode()).endswith("-: line 2: column item: ids are integers in this bundle, got 'x'\n")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "<&- 1>&- 2>&-"])
def test_standard_streams_can_be_closed(bundle, tmp_path, environment, closed):
    out = tmp_path / "lists.csv"
    (tmp_path / "users.csv").write_text("user\n10\n99999\n")
    arguments = (
        f"-m cflightning_serve batch {bundle} --users {tmp_path / 'users.csv'} --out {out} --k 3 --no-exclude-seen"
    )
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {arguments} {closed}"], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.read_text().startswith("user,rank,item,score\n10,1,")
    command = f"{sys.executable} -m cflightning_serve recommend {bundle} --user 99999 {closed}"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_one_line(bundle, environment, one_line):
    command = f"{sys.executable} -m cflightning_serve recommend {bundle} --user 10 > /dev/full"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert (
        one_line(done.stderr.decode()) == "cflightning_serve: the output cannot be written: No space left on device\n"
    )


def test_letters_that_the_terminal_does_not_have_are_replaced(string_bundle, environment):
    done = process(
        "recommend",
        string_bundle,
        "--user",
        "zoë",
        environment=environment | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"user zo?")


def test_a_reader_can_close_the_pipe_early(bundle, environment):
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "cflightning_serve", "recommend", str(bundle), "--user", "30"],
            env=environment,
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
