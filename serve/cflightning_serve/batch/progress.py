"""A bar on standard error while something long goes on: tqdm's where it is installed, else a plain one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WIDTH = 30


@contextmanager
def progress(total: int, done: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show a bar, on a terminal alone.

    Args:
        total: steps in all.
        done: of these before the beginning.
        what: is counted.

    Yields:
        To be called with the number of further steps.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda steps: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        with _plain(total, done, what) as advance:
            yield advance
        return
    with tqdm(total=total, initial=done, unit=f" {what}", unit_scale=True, file=sys.stderr) as bar:
        yield lambda steps: bar.update(steps) and None


@contextmanager
def _plain(total: int, done: int, what: str) -> Iterator[Callable[[int], None]]:
    def draw() -> None:
        filled = _WIDTH * done // max(total, 1)
        bar = "#" * filled + "." * (_WIDTH - filled)
        print(f"\r[{bar}] {done:,} of {total:,} {what}", end="", file=sys.stderr, flush=True)

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        draw()

    draw()
    try:
        yield advance
    finally:
        print(file=sys.stderr)
