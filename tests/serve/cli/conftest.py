"""Fixtures for the tests of the command line."""

import pytest

from cflightning_serve.cli.main import main


@pytest.fixture
def run(capsys):
    """Function from arguments to exit code, standard output and standard error of a command in this process."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def one_line():
    """Function that checks that a text of standard error is one line of this program, and returns it."""

    def check(text):
        assert text.startswith("cflightning_serve: ")
        assert text.count("\n") == 1
        assert text.endswith("\n")
        assert "Traceback" not in text
        return text

    return check


@pytest.fixture
def rich_bundle(bundles, tables, tmp_path):
    """Folder of a bundle with catalogue and history."""
    return bundles.write_bundle(tmp_path / "rich", bundles.make_rich(tables))
