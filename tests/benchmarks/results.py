"""RESULTS.md: one section per benchmark, replaced as a whole by its next run."""

import re
from pathlib import Path

from cflightning.utils.files import atomic_write

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Results\n\nEach section is written by its benchmark and states date, machine and command.\n"


def write_section(name: str, markdown: str, path: Path = RESULTS) -> None:
    """Replace the text between `<!-- begin NAME -->` and `<!-- end NAME -->`, or append it; the write is atomic.

    Args:
        name: name of the section.
        markdown: text of the section.
        path: the file; created if missing.

    Raises:
        ValueError: the file has only one of the two marks, or a mark twice.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else TITLE
    section = f"{begin}\n{markdown.strip()}\n{end}"
    counts = text.count(begin), text.count(end)
    if counts == (0, 0):
        text = f"{text.rstrip()}\n\n{section}\n"
    elif counts == (1, 1) and text.index(begin) < text.index(end):
        text = re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: section, text, flags=re.DOTALL)
    else:
        raise ValueError(f"{path.name}: section {name!r} must begin once and then end once")
    with atomic_write(path) as out:
        out.write(text)
