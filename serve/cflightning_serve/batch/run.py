"""Recommendations for all users in one file, written in parts: a stopped run continues, and users can be sharded."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cflightning_serve.batch.files import check_suffix, join_parts, write_part
from cflightning_serve.batch.parts import parts_folder, remove_parts
from cflightning_serve.batch.progress import progress_bar
from cflightning_serve.bundle.ids import IdArray, check_positive_integer, to_id_array
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.errors import InputError
from cflightning_serve.inference.bulk import TopKLists

PART_SIZE = 4096
"""Number of users of one part."""
BYTES_PER_ROW = 25
"""Approximate size of a row, used before any is written."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ListScorer(Protocol):
    """The part of :class:`cflightning_serve.Scorer` that batch inference uses."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""

    def users(self) -> IdArray:
        """Return the ids of the known users."""

    def recommend_many(self, users: IdArray, k: int, *, exclude_seen: bool | None) -> TopKLists:
        """Return the top-k lists of users."""


@dataclass(frozen=True)
class Settings:
    """The settings that determine the contents of parts; parts with other settings are never joined with them."""

    bundle: str
    """Digest of the bundle's manifest."""
    k: int
    exclude_seen: bool
    users: str
    """Digest of the user ids."""
    part_size: int


@dataclass(frozen=True)
class Shard:
    """One of several runs that share the users: the shard ``number``, from 1, of ``count``."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse a shard such as ``3/16``.

        Raises:
            InputError: the text has another form.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise InputError(f"--shard: must be of the form 3/16, from 1/16 to 16/16, got {text!r}")
        return cls(int(number), int(count))

    def select(self, users: IdArray) -> IdArray:
        """Return the contiguous users of this shard; the sizes of shards differ by at most one."""
        begin, end = (len(users) * number // self.count for number in (self.number - 1, self.number))
        return users[begin:end]

    def output_file(self, path: Path) -> Path:
        """Return the output file of this shard; all shards can be given the same path."""
        if self.count == 1:
            return path
        return path.with_name(f"{path.stem}-{self.number:05d}-of-{self.count:05d}{path.suffix}")


def write_recommendations(
    scorer: ListScorer,
    out: Path,
    k: int,
    *,
    users: object = None,
    shard: Shard | None = None,
    exclude_seen: bool | None = None,
    threads: int = 1,
    part_size: int = PART_SIZE,
) -> Path:
    """Write the top-k lists of many users: columns user, rank (from 1), item and score, in the order of the users.

    Finished parts are kept in ``FILE.parts`` until all are joined; the same call continues a stopped one.

    Args:
        scorer: the bundle's scorer, loaded with one thread.
        out: output file, .csv or .parquet; an existing file is replaced at the end.
        k: number of items for each user, at least 1.
        users: ids [n]; None for all known users.
        shard: the shard of the users to process; None for all users. A shard writes ``FILE-00003-of-00016.csv``.
        exclude_seen: as in :meth:`Scorer.recommend`.
        threads: number of blocks of users that are processed in parallel.
        part_size: number of users of each part.

    Returns:
        The output file.

    Raises:
        InputError: an option is invalid, a file cannot be written, or existing parts belong to another run.
        UnsupportedError: the bundle lacks required data.
    """
    threads, k = check_positive_integer("threads", threads), check_positive_integer("k", k)
    check_suffix(out)
    if not out.parent.is_dir():
        raise InputError(f"--out: {out.parent}: must be a folder, is not; create it first")
    manifest = scorer.manifest
    all_users = scorer.users() if users is None else to_id_array(users, manifest.user_ids, "user")[0]
    shard = shard or Shard()
    ids, target = shard.select(all_users), shard.output_file(out)
    if target.is_dir():
        raise InputError(f"--out: {target}: must be a file, is a folder; choose another name")
    without_seen = manifest.seen_graph is not None if exclude_seen is None else exclude_seen
    folder = target.with_name(f"{target.name}.parts")
    settings = Settings(manifest.sha256, k, without_seen, _digest(ids), part_size)
    starts = range(0, max(len(ids), 1), part_size)  # a shard without users has one part without rows
    parts = [folder / f"{number:06d}{target.suffix}" for number in range(len(starts))]
    with parts_folder(folder, asdict(settings)), _explain_os_errors(target, parts, len(ids) * k):
        missing = [(start, part) for start, part in zip(starts, parts, strict=True) if not part.is_file()]
        num_done = len(ids) - sum(len(ids[start : start + part_size]) for start, _ in missing)
        with progress_bar(len(ids), num_done, "users") as advance, ThreadPoolExecutor(threads) as pool:
            for start, part in missing:
                block = ids[start : start + part_size]
                splits = np.array_split(block, threads)
                lists = pool.map(lambda split: scorer.recommend_many(split, k, exclude_seen=without_seen), splits)
                joined = TopKLists(*map(np.concatenate, zip(*lists, strict=True)))
                write_part(part, block, joined, (manifest.user_ids, manifest.item_ids))
                advance(len(block))
        join_parts(parts, target)
        remove_parts(folder)
    return target


@contextmanager
def _explain_os_errors(target: Path, parts: Sequence[Path], rows: int) -> Iterator[None]:
    """Convert errors of the file system to ``InputError``, with the required space and the finished parts."""
    try:
        yield
    except OSError as error:
        sizes = [part.stat().st_size for part in parts if part.is_file()]
        total = sum(sizes) / len(sizes) * len(parts) if sizes else rows * BYTES_PER_ROW
        space = (
            f": about {(2 * total - sum(sizes)) / 1e6:,.1f} MB more are needed (for the parts and the joined file), "
            f"{shutil.disk_usage(target.parent).free / 1e6:,.1f} MB are free"
        )
        raise InputError(
            f"--out: {target}: cannot be written: {error.strerror}{space if error.errno in DISK_FULL else ''}; the "
            f"finished parts ({len(sizes)} of {len(parts)}) are kept, repeat the command to continue"
        ) from error


def _digest(ids: IdArray) -> str:
    """Return the SHA-256 of ids, hex."""
    return hashlib.sha256(json.dumps(ids.tolist()).encode()).hexdigest()
