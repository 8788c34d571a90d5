"""A progress bar on standard error, if that is a terminal: tqdm's if it is installed, otherwise a simple one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WIDTH = 30
"""Width of the simple bar in characters."""


@contextmanager
def progress_bar(total: int, done: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar.

    Args:
        total: number of steps.
        done: number of steps that are done at the beginning.
        unit: plural noun for the steps.

    Yields:
        A function to call with the number of further steps that are done.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda steps: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        with _simple_bar(total, done, unit) as advance:
            yield advance
        return
    with tqdm(total=total, initial=done, unit=f" {unit}", unit_scale=True, file=sys.stderr) as bar:
        yield lambda steps: bar.update(steps) and None


@contextmanager
def _simple_bar(total: int, done: int, unit: str) -> Iterator[Callable[[int], None]]:
    def draw() -> None:
        filled = WIDTH * done // max(total, 1)
        bar = "#" * filled + "." * (WIDTH - filled)
        print(f"\r[{bar}] {done:,} of {total:,} {unit}", end="", file=sys.stderr, flush=True)

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        draw()

    draw()
    try:
        yield advance
    finally:
        print(file=sys.stderr)
