"""Long questions are asked in blocks, so that no table between a question and its answer grows without bound."""

from collections.abc import Sequence

BLOCK = 1 << 23
"""Numbers that one call of a graph may hold in a table (32 MiB)."""
_WHOLE = (slice(None),)


def blocks(count: int, width: int) -> Sequence[slice]:
    """Cut ``count`` rows of ``width`` numbers each into slices that stay below ``BLOCK``; at least one slice."""
    step = max(1, BLOCK // max(1, width))
    if count <= step:
        return _WHOLE
    return [slice(start, start + step) for start in range(0, count, step)]
