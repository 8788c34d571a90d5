"""The Dockerfile, checked without Docker: its lines, the files that it copies and the command that it runs."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from cflightning_serve.cli.commands import find_commands
from cflightning_serve.cli.main import build_parser

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "serve" / "Dockerfile"
PROJECT = tomllib.loads((REPOSITORY / "serve" / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def lines():
    """(instruction, arguments) in order, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]


def only(lines, instruction):
    [arguments] = [arguments for name, arguments in lines if name == instruction]
    return arguments


def test_every_instruction_is_valid(lines):
    assert {name for name, _ in lines} <= {
        "FROM", "ENV", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    assert lines[0][0] == "FROM"


def test_the_base_image_is_pinned_slim_and_recent_enough(lines):
    name, _, digest = only(lines, "FROM").partition("@")
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    image, _, tag = name.partition(":")
    assert image == "python"
    python, kind, distribution = tag.split("-")
    assert kind == "slim"
    assert distribution.isalpha()  # otherwise slim would change to another Debian release
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["project"]["requires-python"])[1]
    assert int(re.fullmatch(r"3\.(\d+)", python)[1]) >= int(least)


def test_the_server_does_not_run_as_root(lines):
    names = [name for name, _ in lines]
    user, group = only(lines, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert names.index("RUN") < names.index("USER") < names.index("ENTRYPOINT")


def test_packages_are_installed_by_hash_and_without_build_tools(lines):
    install, compiled = (arguments for name, arguments in lines if name == "RUN")
    assert install.startswith("pip install ")
    assert not re.search(r"\b(apt|apt-get|apk|gcc|build-essential|curl|wget)\b", install + compiled)
    for option in ("--no-cache-dir", "--only-binary=:all:", "--require-hashes"):
        assert option in install.split()
    assert compiled.startswith("python -m compileall ")


def test_required_files_are_copied_and_not_ignored(lines):
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


def test_the_command_line_accepts_the_command(lines):
    parser = build_parser(find_commands())
    start, arguments = json.loads(only(lines, "ENTRYPOINT")), json.loads(only(lines, "CMD"))
    assert start[:3] == ["python", "-m", "cflightning_serve"]
    options = parser.parse_args([*start[3:], *arguments])
    assert (options.command.name, options.bundle) == ("http", "/bundle")
    assert (options.host, options.port) == ("0.0.0.0", 8000)
    assert only(lines, "EXPOSE") == str(options.port)
    assert parser.parse_args(["http", "/bundle"]).host == "127.0.0.1"  # the default outside of a container


def test_the_health_check_requests_the_served_port(lines):
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
    timeout = int(re.search(r"--timeout=(\d+)s", options)[1])
    assert int(re.search(r"timeout=(\d+)\)", code)[1]) < timeout


@pytest.mark.parametrize("page", ["README.md", "docs/deployment.md"])
def test_pages_show_the_commands_of_the_dockerfile(page):
    shown = re.findall(r"#   (docker .*)", DOCKERFILE.read_text("utf-8"))
    text = (REPOSITORY / page).read_text("utf-8")
    assert [line.split()[1] for line in shown] == ["build", "run"]
    for line in shown:
        assert line in text
        assert shlex.split(line)[-1] in (".", "cflightning-serve")
    assert not re.search(r"-p \d+:", text)  # published on the loopback interface by default
