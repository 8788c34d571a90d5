"""A hash of (user, item) pairs that depends on the raw ids and a seed alone."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from cflightning.data.ids import Ids
from cflightning.data.table import RatingTable

CHUNK = 1 << 20
"""Rows that are hashed at a time."""
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""Increment of splitmix64."""
MANTISSA_BITS = 53
"""Bits of a hash that are compared with the fraction."""


def hold_out_by_hash(table: RatingTable, fraction: float, seed: list[int]) -> np.ndarray:
    """Hold out the rows whose pair has a hash below `fraction`, as a number in [0, 1) -> bool [rows].

    A row keeps its side when other rows are added, left out or reordered. Integers and their decimal text have the
    same hash.

    Args:
        table: The rows.
        fraction: Approximate share of the rows to hold out.
        seed: Numbers of one choice; other numbers give an independent one.
    """
    start = np.uint64(0)
    with np.errstate(over="ignore"):
        for number in seed:
            start = _mix(np.array([start ^ np.uint64(number % 2**64)]))[0]
    users, items = _mix(hash_ids(table.user.ids) ^ start), hash_ids(table.item.ids)
    bound = np.uint64(int(fraction * 2**MANTISSA_BITS))
    held_out = np.empty(len(table), dtype=bool)
    for first in range(0, len(table), CHUNK):
        rows = slice(first, first + CHUNK)
        pair_hash = _mix(users[table.user.codes[rows]] ^ items[table.item.codes[rows]])
        held_out[rows] = (pair_hash >> np.uint64(64 - MANTISSA_BITS)) < bound
    return held_out


def hash_ids(ids: Ids) -> np.ndarray:
    """Return a 64-bit hash of each id: splitmix64 of integers, BLAKE2b of other text -> uint64 [ids]."""
    if ids.kind == "int64":
        return _mix(ids.values.astype(np.int64).view(np.uint64))
    hashes = np.empty(len(ids), dtype=np.uint64)
    for position, text in enumerate(ids.values.tolist()):
        encoded = text.encode("utf-8", "surrogatepass")
        hashes[position] = int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
    integers = np.array([_is_int64(text) for text in ids.values.tolist()], dtype=bool)
    if integers.any():
        hashes[integers] = _mix(ids.values[integers].astype(np.int64).view(np.uint64))
    return hashes


def _is_int64(text: str) -> bool:
    """Return whether a text is the canonical notation of an int64."""
    return re.fullmatch("0|-?[1-9][0-9]{0,18}", text) is not None and -(2**63) <= int(text) < 2**63


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Return the splitmix64 step of each number (Steele, Lea & Flood 2014): uint64 [n]."""
    z = numbers + GOLDEN_GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
