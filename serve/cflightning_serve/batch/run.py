"""The lists of all users in one file: in parts, which are kept when it is stopped, and for one machine of several."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cflightning_serve.batch.files import check_format, join_parts, write_part
from cflightning_serve.batch.parts import parts_folder, remove
from cflightning_serve.batch.progress import progress
from cflightning_serve.bundle.ids import IdArray, check_positive_integer, to_id_array
from cflightning_serve.errors import InputError
from cflightning_serve.inference.recommend import seen_question
from cflightning_serve.scorer import Scorer

PART = 4096
"""Users of one part."""
ROW = 25
"""Bytes of a row, about, before any is written."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Record:
    """What parts are of; those of anything else are never joined with them."""

    bundle: str
    k: int
    exclude_seen: bool
    users: str
    part: int


@dataclass(frozen=True)
class Shard:
    """One of several runs that share the users: number ``number``, from 1, of ``of``."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From ``3/16``.

        Raises:
            InputError: something else.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise InputError(f"--shard: must be like 3/16, from 1/16 to 16/16, got {text!r}")
        return cls(int(number), int(of))

    def users(self, everyone: IdArray) -> IdArray:
        """Its users: neighbours, as many as every other shard has, or one more."""
        ends = [len(everyone) * number // self.of for number in (self.number - 1, self.number)]
        return everyone[ends[0] : ends[1]]

    def file(self, path: Path) -> Path:
        """Its own file: several may be given the same name."""
        if self.of == 1:
            return path
        return path.with_name(f"{path.stem}-{self.number:05d}-of-{self.of:05d}{path.suffix}")


def write_recommendations(
    scorer: Scorer,
    out: Path,
    k: int,
    *,
    users: object = None,
    shard: Shard | None = None,
    exclude_seen: bool | None = None,
    threads: int = 1,
    part_size: int = PART,
) -> Path:
    """Write the best items of many users: columns user, rank (from 1), item and score, in the order of the users.

    Parts lie beside the file, in ``FILE.parts``, until all are there; the same call goes on where one was stopped.

    Args:
        scorer: of the bundle; made with one thread.
        out: ends in .csv or .parquet; a file that is there is replaced at the end.
        k: items of each user, at least 1.
        users: ids [n]; None for all known users.
        shard: which of the users; None for all. A shard writes a file of its own, ``FILE-00003-of-00016.csv``.
        exclude_seen: as in :meth:`Scorer.recommend`.
        threads: blocks of users that are worked on at once.
        part_size: users of each of the parts.

    Returns:
        The file.

    Raises:
        InputError: an option that cannot be, a file that cannot be written, or parts of something else in its place.
        UnsupportedError: the bundle was written without what this takes.
    """
    threads, k = check_positive_integer("threads", threads), check_positive_integer("k", k)
    check_format(out)
    if not out.parent.is_dir():
        raise InputError(f"--out: {out.parent}: must be a folder, is none; make it first")
    manifest = scorer.manifest
    everyone = scorer.users() if users is None else to_id_array(users, manifest.user_ids, "user")[0]
    shard = shard or Shard()
    mine, target = shard.users(everyone), shard.file(out)
    if target.is_dir():
        raise InputError(f"--out: {target}: must be a file, is a folder; choose another name")
    seen = seen_question(manifest) is not None if exclude_seen is None else exclude_seen
    folder = target.with_name(f"{target.name}.parts")
    record = Record(manifest.sha256, k, seen, _digest(mine), part_size)
    starts = range(0, max(len(mine), 1), part_size)  # a shard without users has a part without rows
    parts = [folder / f"{number:06d}{target.suffix}" for number in range(len(starts))]
    with parts_folder(folder, asdict(record)), _writing(target, parts, len(mine) * k):
        there = [part.is_file() for part in parts]
        done = sum(len(mine[start : start + part_size]) for start, known in zip(starts, there, strict=True) if known)
        with progress(len(mine), done, "users") as advance, ThreadPoolExecutor(threads) as workers:
            for start, part, known in zip(starts, parts, there, strict=True):
                if known:
                    continue
                some = mine[start : start + part_size]
                cuts = np.array_split(some, threads)
                lists = workers.map(lambda cut: scorer.lists(cut, k, exclude_seen=seen), cuts)
                joined = type(first := next(lists))(*map(np.concatenate, zip(first, *lists, strict=True)))
                write_part(part, some, joined, (manifest.user_ids, manifest.item_ids))
                advance(len(some))
        join_parts(parts, target)
        remove(folder)
    return target


@contextmanager
def _writing(target: Path, parts: Sequence[Path], rows: int) -> Iterator[None]:
    """Turn errors of the file system into `InputError`: what cannot be written, how much it needs and what is kept."""
    try:
        yield
    except OSError as error:
        sizes = [part.stat().st_size for part in parts if part.is_file()]
        whole = sum(sizes) / len(sizes) * len(parts) if sizes else rows * ROW
        room = (
            f": about {(2 * whole - sum(sizes)) / 1e6:,.1f} MB more are needed (the parts, and the file of them), "
            f"{shutil.disk_usage(target.parent).free / 1e6:,.1f} MB are free"
        )
        raise InputError(
            f"--out: {target}: cannot be written: {error.strerror}{room if error.errno in FULL else ''}; the parts "
            f"that are finished ({len(sizes)} of {len(parts)}) stay, and the same command goes on with them"
        ) from error


def _digest(users: IdArray) -> str:
    """SHA-256 of ids, in hex."""
    return hashlib.sha256(json.dumps(users.tolist()).encode()).hexdigest()
