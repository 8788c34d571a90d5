"""The Dockerfile as far as it can be judged without a daemon: line by line, and against what it copies and runs."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from cflightning_serve.cli import main as cli

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
    name, _, digest = only(lines, "FROM").partition("@")
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    image, _, tag = name.partition(":")
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


def test_no_build_tools_and_nothing_that_no_hash_is_known_of(lines):
    install, compiled = (arguments for name, arguments in lines if name == "RUN")
    assert install.startswith("pip install ")
    assert not re.search(r"\b(apt|apt-get|apk|gcc|build-essential|curl|wget)\b", install + compiled)
    for option in ("--no-cache-dir", "--only-binary=:all:", "--require-hashes"):
        assert option in install.split()
    assert compiled.startswith("python -m compileall ")


def test_what_is_installed_is_copied_and_not_ignored(lines):
    copied = dict(arguments.split() for name, arguments in lines if name == "COPY")
    assert copied == {"serve/requirements.txt": "/app/", "serve/cflightning_serve": "/app/cflightning_serve"}
    assert next(arguments for name, arguments in lines if name == "RUN").endswith("-r /app/requirements.txt")
    assert "PYTHONPATH=/app" in only(lines, "ENV").split()
    ignored, *rules = [
        line for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    assert ignored == "**"
    assert {line[1:] for line in rules if line[0] == "!"} == set(copied)
    assert "**/__pycache__" in rules


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


@pytest.mark.parametrize("page", ["README.md", "docs/deployment.md"])
def test_pages_show_the_commands_of_the_dockerfile(page):
    shown = re.findall(r"#   (docker .*)", DOCKERFILE.read_text("utf-8"))
    text = (REPOSITORY / page).read_text("utf-8")
    assert [line.split()[1] for line in shown] == ["build", "run"]
    for line in shown:
        assert line in text
        assert shlex.split(line)[-1] in (".", "cflightning-serve")
    assert not re.search(r"-p \d+:", text)  # published on the loopback interface by default
