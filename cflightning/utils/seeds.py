"""Seeds that are derived from one seed."""

SEED_FACTOR = 1_000_003
"""Prime by which one of two numbers is multiplied before the other is added, so that sums of small numbers differ."""


def member_seed(seed: int, member: int) -> int:
    """Return the seed of a member of an ensemble; the first member has the seed itself."""
    return seed + member * SEED_FACTOR
