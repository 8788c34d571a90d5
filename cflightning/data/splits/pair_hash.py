"""A number in [0, 1) for every (user, item) pair, from the raw ids and a seed alone."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from cflightning.data.ids import Ids
from cflightning.data.table import RatingTable

CHUNK = 1 << 20
"""Rows at a time."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def held_out_by_hash(table: RatingTable, fraction: float, seed: list[int]) -> np.ndarray:
    """Return the rows whose pair's number lies below `fraction`: bool [rows].

    The number depends on nothing but the two ids and the seed, so a row stays on its side when others are added, left
    out or put in another order. Integers and their decimal text have the same number.

    Args:
        table: The rows.
        fraction: About what share of them is held out.
        seed: Numbers of one draw; another list gives an independent one.
    """
    start = np.uint64(0)
    with np.errstate(over="ignore"):
        for one in seed:
            start = _mix(np.array([start ^ np.uint64(one % 2**64)]))[0]
    users, items = _mix(hash_ids(table.user.ids) ^ start), hash_ids(table.item.ids)
    bound = np.uint64(int(fraction * 2**53))
    held = np.empty(len(table), dtype=bool)
    for first in range(0, len(table), CHUNK):
        rows = slice(first, first + CHUNK)
        number = _mix(users[table.user.codes[rows]] ^ items[table.item.codes[rows]])
        held[rows] = (number >> np.uint64(11)) < bound
    return held


def hash_ids(ids: Ids) -> np.ndarray:
    """Return a 64-bit number for each id: splitmix64 of integers, BLAKE2b of other text -> uint64 [ids]."""
    if ids.kind == "int64":
        return _mix(ids.values.astype(np.int64).view(np.uint64))
    found = np.empty(len(ids), dtype=np.uint64)
    for place, value in enumerate(ids.values.tolist()):
        written = value.encode("utf-8", "surrogatepass")
        found[place] = int.from_bytes(hashlib.blake2b(written, digest_size=8).digest(), "little")
    integers = np.array([_is_integer(value) for value in ids.values.tolist()], dtype=bool)
    if integers.any():
        found[integers] = _mix(ids.values[integers].astype(np.int64).view(np.uint64))
    return found


def _is_integer(value: str) -> bool:
    """Whether a text is what an int64 is written as."""
    return re.fullmatch("0|-?[1-9][0-9]{0,18}", value) is not None and -(2**63) <= int(value) < 2**63


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Return the splitmix64 step of each number (Steele, Lea & Flood 2014): uint64 [n]."""
    z = numbers + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
