"""The Dockerfile as far as it can be judged without a daemon: line by line, and against what it copies and runs."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cflightning_serve import cli

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "serve" / "Dockerfile"
PROJECT = tomllib.loads((REPOSITORY / "serve" / "pyproject.toml").read_text("utf-8"))
needs_server = pytest.mark.skipif(
    "http" not in PROJECT["project"].get("optional-dependencies", ()), reason="there is no server to run yet"
)


@pytest.fixture(scope="module")
def lines():
    """(instruction, arguments) in order, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]


def only(lines, instruction):
    [arguments] = [arguments for name, arguments in lines if name == instruction]
    return arguments


def test_every_instruction_is_one_that_docker_knows(lines):
    assert {name for name, _ in lines} <= {
        "FROM", "ENV", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    assert lines[0][0] == "FROM"


def test_the_base_is_pinned_small_and_new_enough(lines):
    image, _, tag = only(lines, "FROM").partition(":")
    assert image == "python"
    python, kind, distribution = tag.split("-")
    assert kind == "slim"
    assert distribution.isalpha()  # or slim would be another Debian one day
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["project"]["requires-python"])[1]
    assert int(re.fullmatch(r"3\.(\d+)", python)[1]) >= int(least)


def test_nothing_runs_as_root(lines):
    names = [name for name, _ in lines]
    user, group = only(lines, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert names.index("USER") > names.index("RUN")
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_no_build_tools_and_no_leftovers(lines):
    command = only(lines, "RUN")
    assert not re.search(r"\b(apt|apt-get|apk|gcc|build-essential|curl|wget)\b", command)
    assert "--no-cache-dir" in command
    assert "--only-binary=:all:" in command
    assert command.endswith("&& rm -r /build")


def copied(lines):
    for arguments in (arguments for name, arguments in lines if name == "COPY"):
        source, target = arguments.split()
        yield source, target


def test_what_is_installed_is_copied_and_not_ignored(lines):
    targets = dict(copied(lines))
    assert targets == {"constraints.txt": "/build/", "serve/": "/build/serve/"}
    command = only(lines, "RUN")
    assert "--constraint /build/constraints.txt" in command
    assert '"/build/serve[http]"' in command
    ignored, *kept = [
        line for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    assert ignored == "**"
    kept = {line[1:] for line in kept if line[0] == "!"}
    for name in kept:
        assert (REPOSITORY / name).exists(), name
    needed = {
        "constraints.txt", "serve/pyproject.toml", f"serve/{PROJECT['project']['readme']}",
        *(f"serve/{name}" for name in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]),
    }  # fmt: skip
    assert needed <= kept
    assert not [name for name in kept if any(fnmatch(name, bad) for bad in ("*test*", "*data*", ".git*", "*run*"))]


@needs_server
def test_the_command_is_understood(lines):
    start, arguments = json.loads(only(lines, "ENTRYPOINT")), json.loads(only(lines, "CMD"))
    assert start[:3] == ["python", "-m", "cflightning_serve"]
    options = cli._parser().parse_args([*start[3:], *arguments])
    assert (options.command, options.bundle, options.host, options.port) == ("http", "/bundle", "0.0.0.0", 8000)
    assert only(lines, "EXPOSE") == str(options.port)
    assert cli._parser().parse_args(["http", "/bundle"]).host == "127.0.0.1"  # outside of a container


def test_the_health_check_asks_the_port_that_is_served(lines):
    options, check = only(lines, "HEALTHCHECK").split("CMD ", 1)
    assert {option.split("=")[0] for option in options.split()} == {
        "--interval", "--timeout", "--start-period", "--retries",
    }  # fmt: skip
    program, flag, code = json.loads(check)
    assert (program, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    arguments = json.loads(only(lines, "CMD"))
    port = arguments[arguments.index("--port") + 1]
    assert f"http://127.0.0.1:{port}/v2/health/ready" in code
    within = int(re.search(r"--timeout=(\d+)s", options)[1])
    assert int(re.search(r"timeout=(\d+)\)", code)[1]) < within


def test_the_lines_that_the_file_and_the_readme_show():
    shown = re.findall(r"#   (docker .*)", DOCKERFILE.read_text("utf-8"))
    readme = (DOCKERFILE.parent / "README.md").read_text("utf-8")
    assert [line.split()[1] for line in shown] == ["build", "run"]
    for line in shown:
        assert line in readme
        words = shlex.split(line)
        assert words[-1] in (".", "cflightning-serve")
    assert not re.search(r"-p \d+:", readme)  # published on the loopback unless somebody decides otherwise
