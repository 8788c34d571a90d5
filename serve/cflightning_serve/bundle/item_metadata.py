"""Titles and catalogue of a bundle's items, read at their first use."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.catalogue import Catalogue
from cflightning_serve.bundle.files import REMEDY, decompress
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.release import release_in_steps
from cflightning_serve.bundle.strict_json import Json, parse_json
from cflightning_serve.errors import BundleError, UnsupportedError

INDEX_BLOCK = 10_000
"""Ids that are indexed, or released, between two pauses."""


class ItemMetadata:
    """Item titles and catalogue of one bundle; safe to share between threads.

    Args:
        manifest: the bundle's manifest.
        files: the bundle's files.
    """

    def __init__(self, manifest: Manifest, files: LoadedFiles) -> None:
        self._manifest = manifest
        self._files = files
        self._titles: dict[str, str] | None = None
        self._catalogue: Catalogue | None = None
        self._lock = threading.Lock()

    @property
    def titles(self) -> dict[str, str]:
        """Item id as a string -> title. Ids without a title are missing.

        Raises:
            BundleError: the file of titles is damaged.
        """
        with self._lock:
            if self._titles is None:
                self._titles = read_titles(self._manifest, self._files)
            return self._titles

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue.

        Raises:
            BundleError: the file of the catalogue is damaged.
            UnsupportedError: the bundle has none.
        """
        with self._lock:
            if self._catalogue is None:
                self._catalogue = read_catalogue(self._manifest, self._files)
            return self._catalogue

    def read(self, cancellation: Cancellation | None = None) -> None:
        """Read titles and catalogue now.

        Raises:
            BundleError: a file is damaged, or the load was cancelled.
        """
        with self._lock:
            self._titles = read_titles(self._manifest, self._files, cancellation)
            if self._manifest.catalogue is not None:
                self._catalogue = read_catalogue(self._manifest, self._files, cancellation)

    def release_in_steps(self) -> None:
        """Release the titles in steps, in a background thread, once nothing uses them."""
        release_in_steps(self, self._titles or {}, INDEX_BLOCK)


def read_titles(manifest: Manifest, files: LoadedFiles, cancellation: Cancellation | None = None) -> dict[str, str]:
    """Read the titles of a bundle; empty if it has none.

    Args:
        manifest: the bundle's manifest.
        files: the bundle's files.
        cancellation: can stop the reading, which then pauses for other threads.

    Returns:
        Item id as a string -> title. Ids without a title are missing.

    Raises:
        BundleError: the file is damaged.
    """
    if manifest.titles is None:
        return {}
    titles = _read_json(manifest.titles, files, cancellation)
    if type(titles) is not dict or not set(map(type, titles.values())) <= {str}:
        raise BundleError(f"{files.path(manifest.titles)}: must be one JSON object of item id -> title; {REMEDY}")
    return titles


def read_catalogue(manifest: Manifest, files: LoadedFiles, cancellation: Cancellation | None = None) -> Catalogue:
    """Read the catalogue of a bundle.

    Args:
        manifest: the bundle's manifest.
        files: the bundle's files.
        cancellation: can stop the reading, which then pauses for other threads.

    Raises:
        BundleError: the file is damaged.
        UnsupportedError: the bundle has no catalogue.
    """
    if manifest.catalogue is None:
        raise UnsupportedError(
            f"{manifest.folder}: has no catalogue, it was written by an older version; export it again"
        )
    path = files.path(manifest.catalogue)
    raw = _read_json(manifest.catalogue, files, cancellation)
    num_items = manifest.num_items - 1

    def check(valid: bool, must: str) -> None:
        if not valid:
            raise BundleError(f"{path}: {must}; {REMEDY}")

    check(type(raw) is dict and {"item", "count", "categories"} <= raw.keys(), "must have item, count and categories")
    ids, counts, categories = raw["item"], raw["count"], raw["categories"]
    id_class = int if manifest.item_ids == "int64" else str
    check(_is_list_of(ids, id_class, num_items), f"item must be {num_items:,} ids of type {manifest.item_ids}")
    check(
        counts is None or (_is_list_of(counts, int, num_items) and min(counts, default=0) >= 0),
        f"count must be null or {num_items:,} integers from 0",
    )
    check(type(categories) is dict, "categories must be an object")
    try:
        tables = {}
        for name, indices in categories.items():
            table = _to_indices(indices, num_items)
            if table is None:
                raise BundleError(f"{path}: categories -> {name[:60]!r} must be indices of item; {REMEDY}")
            tables[name] = table
        return Catalogue(
            manifest.item_ids,
            np.array(ids, np.int64 if id_class is int else object),
            None if counts is None else np.array(counts, np.int64),
            tables,
            None if cancellation is None or id_class is int else _index_by_id(ids, cancellation.check),
        )
    except OverflowError as error:
        raise BundleError(f"{path}: ids and counts must fit into 64 bits; {REMEDY}") from error


def _read_json(name: str, files: LoadedFiles, cancellation: Cancellation | None) -> Json:
    path = files.path(name)
    pause = None if cancellation is None else cancellation.check
    return parse_json(path, decompress(path, files.read(name)), pause)


def _is_list_of(values: Json, type_: type, length: int | None = None) -> bool:
    return type(values) is list and length in (None, len(values)) and set(map(type, values)) <= {type_}


def _to_indices(values: Json, num_items: int) -> npt.NDArray[np.int64] | None:
    """Return indices of the catalogue as an array; None if the values are not indices."""
    if not _is_list_of(values, int):
        return None
    indices = np.array(values, np.int64)
    return indices if ((indices >= 0) & (indices < num_items)).all() else None


def _index_by_id(ids: Sequence[str], pause: Callable[[], None]) -> dict[str, int]:
    index: dict[str, int] = {}
    for begin in range(0, len(ids), INDEX_BLOCK):
        index.update(zip(ids[begin : begin + INDEX_BLOCK], range(begin, len(ids)), strict=False))
        pause()
    return index
