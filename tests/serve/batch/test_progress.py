"""The progress bar."""

import pytest

from cflightning_serve.batch.progress import progress_bar


class Terminal:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("installed", [True, False])
def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys, installed):
    with progress_bar(10, 0, "users") as advance:
        advance(10)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    if not installed:
        monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with progress_bar(10, 5, "users") as advance:
        advance(5)
    assert "users" in terminal.text
    assert "10" in terminal.text
