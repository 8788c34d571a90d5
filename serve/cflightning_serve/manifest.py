"""``manifest.json``: reading it, and holding the files of the bundle against it."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from cflightning_serve.errors import BundleError
from cflightning_serve.files import (
    AGAIN,
    JSON_NAMES,
    digest_of,
    json_name,
    read_object,
    readable,
    refuse_unless_plain_file,
)
from cflightning_serve.reference import Reference, parse_reference
from cflightning_serve.replaced import find_folder

FORMAT = "cflightning-bundle"
FORMAT_VERSION = 2
"""Newest format that this reader knows; it reads every older one too."""

MANIFEST = "manifest.json"
QUESTIONS = ("score", "recommend", "similar")
"""Keys of ``graphs`` that every bundle has."""
SCORED = ("score", "recommend")
"""Keys of ``units``."""

IdType = Literal["int64", "string"]
Unit = Literal["rating", "choice"]
"""Of scores: rating units, or none, so that only their order says what somebody would choose."""

_NoneType = type(None)
_KEYS: dict[str, tuple[type, ...]] = {
    "format_version": (int,),
    "written_by": (str,),
    "created": (str,),
    "model": (str,),
    "dim": (int,),
    "ids": (dict,),
    "num_users": (int,),
    "num_items": (int,),
    "rating_range": (list, _NoneType),
    "metrics": (dict,),
    "graphs": (dict,),
    "titles": (str, _NoneType),
    "files": (dict,),
    "sha256": (str,),
}
_SINCE_2: dict[str, tuple[type, ...]] = {"units": (dict,)}


class FileEntry(NamedTuple):
    """What the manifest says of one file: its length in bytes and its SHA-256 digest in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a bundle's ``manifest.json``; the keys are explained in ``serve/BUNDLE.md``.

    ``num_users`` and ``num_items`` count the unknown row; ``folder`` is where the bundle lies, links resolved;
    ``units`` says of ``score`` and ``recommend`` whether they answer with ratings (always, in format 1) or choices.
    """

    folder: Path
    format_version: int
    written_by: str
    created: str
    model: str
    dim: int
    user_ids: IdType
    item_ids: IdType
    num_users: int
    num_items: int
    rating_range: tuple[float, float] | None
    units: Mapping[str, Unit]
    metrics: Mapping[str, float]
    graphs: Mapping[str, str]
    titles: str | None
    catalogue: str | None
    files: Mapping[str, FileEntry]
    sha256: str
    reference: Mapping[str, Reference] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Manifest":
        """Read the manifest of the bundle in ``folder`` and check it in itself; no other file is touched.

        Raises:
            BundleError: there is no bundle, or its manifest is damaged, edited, incomplete or of a newer format.
        """
        root = find_folder(Path(folder))
        with readable(root):
            if not root.is_dir():
                got = "is a file" if root.exists() else "does not exist"
                raise BundleError(
                    f"{root}: must be the folder of a bundle, {got}; give the folder that the export wrote"
                )
            root = root.resolve()  # a link to the folder may move to the next bundle later; this one stays
        raw = read_object(root / MANIFEST)
        _check_version(root / MANIFEST, raw)
        _check_digest(root / MANIFEST, raw)
        return _parse(root, raw)

    def verify(self, *, digests: bool = True) -> None:
        """Check that every file is there with the length, and unless told otherwise the digest, of the manifest.

        Raises:
            BundleError: a file is missing, is a symbolic link, or differs from what the manifest says.
        """
        for name, entry in self.files.items():
            path = self.folder / name
            refuse_unless_plain_file(path)
            size = path.stat().st_size
            if size != entry.bytes:
                raise BundleError(
                    f"{path}: must hold {entry.bytes:,} bytes, holds {size:,}: truncated or replaced; {AGAIN}"
                )
            if digests and digest_of(path) != entry.sha256:
                raise BundleError(f"{path}: its sha256 is not the manifest's: damaged or edited; {AGAIN}")

    def path(self, question: str) -> Path:
        """Where the graph that answers ``question`` lies."""
        return self.folder / self.graphs[question]


def _check_version(path: Path, raw: dict[str, Any]) -> None:
    if raw.get("format") != FORMAT:
        raise BundleError(
            f'{path}: "format" must be "{FORMAT}", is {raw.get("format")!r}; this is the manifest of something else'
        )
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise BundleError(f'{path}: "format_version" must be an integer from 1, is {version!r}; {AGAIN}')
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: format {version}, written by {raw.get('written_by', 'an unnamed program')}, is newer than this "
            f"reader, which knows formats up to {FORMAT_VERSION}; upgrade cflightning-serve"
        )


def _check_digest(path: Path, raw: dict[str, Any]) -> None:
    if type(raw.get("sha256")) is not str:
        raise BundleError(f'{path}: "sha256" must be a string, is of type {json_name(raw.get("sha256"))}; {AGAIN}')
    rest = {key: value for key, value in raw.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != raw["sha256"]:
        raise BundleError(f"{path}: its own sha256 does not fit what it says: damaged or edited by hand; {AGAIN}")


def _parse(folder: Path, raw: dict[str, Any]) -> Manifest:
    path = folder / MANIFEST

    def check(holds: bool, key: str, must: str) -> None:
        if not holds:
            raise BundleError(f"{path}: {key} must be {must}; {AGAIN}")

    for key, kinds in (_KEYS | (_SINCE_2 if raw["format_version"] > 1 else {})).items():
        check(key in raw, f'"{key}"', "there, is missing")
        kind = type(raw[key])  # exact: true is no integer
        check(kind in kinds, f'"{key}"', f"{' or '.join(map(JSON_NAMES.__getitem__, kinds))}, is {json_name(raw[key])}")
    for key, least in (("dim", 0), ("num_users", 1), ("num_items", 1)):
        check(raw[key] >= least, f'"{key}"', f"at least {least}, is {raw[key]}")
    for key in ("user", "item"):
        got = raw["ids"].get(key)
        check(got in ("int64", "string"), f'"ids" -> "{key}"', f'"int64" or "string", is {got!r}')
    limits = raw["rating_range"]
    if limits is not None:
        fits = len(limits) == 2 and all(type(limit) in (int, float) for limit in limits) and limits[0] <= limits[1]
        check(fits, '"rating_range"', f"two numbers, the lower one first, is {limits}")
    # What format 1 says under this key means nothing, as any key that it does not know.
    units = raw["units"] if raw["format_version"] > 1 else dict.fromkeys(SCORED, "rating")
    for question in SCORED:
        got = units.get(question)
        check(got in ("rating", "choice"), f'"units" -> "{question}"', f'"rating" or "choice", is {got!r}')
    for key, value in raw["metrics"].items():
        check(type(value) in (int, float), f'"metrics" -> "{key}"', f"a number, is {json_name(value)}")
    for question in QUESTIONS:
        check(question in raw["graphs"], f'"graphs" -> "{question}"', "there, is missing")

    for name, entry in raw["files"].items():
        fits = type(entry) is dict and type(entry.get("bytes")) is int and type(entry.get("sha256")) is str
        check(fits, f'"files" -> "{name}"', '{"bytes": integer, "sha256": string}')
        check(_is_plain_name(name), f'"files" -> "{name}"', "a plain file name inside the folder")
    named = {f'"graphs" -> "{question}"': name for question, name in raw["graphs"].items()}
    named |= {f'"{key}"': raw[key] for key in ("titles", "catalogue") if raw.get(key) is not None}
    for key, name in named.items():
        check(type(name) is str and name in raw["files"], key, f'a file named in "files", is {name!r}')
    try:
        reference = parse_reference(raw.get("reference"))
    except (ValueError, OverflowError) as error:
        raise BundleError(f'{path}: "reference" must be {error}; {AGAIN}') from error

    return Manifest(
        folder=folder,
        user_ids=cast(IdType, raw["ids"]["user"]),
        item_ids=cast(IdType, raw["ids"]["item"]),
        catalogue=raw.get("catalogue"),  # bundles of older versions have none
        rating_range=None if limits is None else (float(limits[0]), float(limits[1])),
        units={question: cast(Unit, units[question]) for question in SCORED},
        files={name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in raw["files"].items()},
        reference=reference,
        **{key: raw[key] for key in _KEYS if key not in ("ids", "rating_range", "files")},
    )


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\:\0")
