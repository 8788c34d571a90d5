"""``manifest.json``: reading it, and holding the files of the bundle against it."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from cflightning_serve.bundle.files import (
    AGAIN,
    JSON_NAMES,
    FileEntry,
    json_name,
    parse_object,
    read_bytes,
    read_verified,
    readable,
)
from cflightning_serve.bundle.reference import Reference, parse_reference
from cflightning_serve.bundle.replaced import locate_bundle
from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import BundleError

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
_LONGEST = 200
"""Characters of a text that people read."""
_HIGHEST = 2**63 - 1
"""Largest count that a manifest may state."""
_FLOAT32 = 3.4028234663852886e38
_SINCE_2: dict[str, tuple[type, ...]] = {"units": (dict,)}


@dataclass(frozen=True)
class Manifest:
    """The contents of a bundle's ``manifest.json``; the keys are explained in ``serve/BUNDLE.md``.

    ``num_users`` and ``num_items`` count the unknown row; ``folder`` is where the bundle lies, links resolved;
    ``units`` says of ``score`` and ``recommend`` whether they answer with ratings (always, in format 1) or choices;
    ``file_sha256`` is the digest of the file ``manifest.json`` itself.
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
    file_sha256: str = ""

    @classmethod
    def read(cls, folder: str | os.PathLike[str], trust: Trust | None = None) -> "Manifest":
        """Read the manifest of the bundle in ``folder`` and check it in itself; no other file is touched.

        Args:
            folder: of the bundle.
            trust: the digest or the signature that the manifest must have.

        Raises:
            BundleError: there is no bundle, or its manifest is damaged, edited, incomplete, of a newer format, or not
                the one that is trusted.
        """
        root = locate_bundle(Path(folder))
        with readable(root):
            if not root.is_dir():
                got = "is a file" if root.exists() else "does not exist"
                raise BundleError(
                    f"{root}: must be the folder of a bundle, {got}; give the folder that the export wrote"
                )
            root = root.resolve()  # a link to the folder may move to the next bundle later; this one stays
        data = read_bytes(root / MANIFEST)
        if trust is not None:
            trust.check(root / MANIFEST, data)
        raw = parse_object(root / MANIFEST, data)
        _check_version(root / MANIFEST, raw)
        _check_digest(root / MANIFEST, raw)
        return _parse(root, raw, hashlib.sha256(data).hexdigest())

    def verify(self, *, digests: bool = True, check: Callable[[], None] = lambda: None) -> None:
        """Check that every file is there with the length, and unless told otherwise the digest, of the manifest.

        Args:
            digests: whether to compare them.
            check: called between blocks of the files; may raise.

        Raises:
            BundleError: a file is missing, is a symbolic link, or differs from what the manifest says.
        """
        for name, entry in self.files.items():
            read_verified(self.folder / name, entry, digest=digests, keep=False, check=check)

    def path(self, question: str) -> Path:
        """Where the graph that answers ``question`` lies."""
        return self.folder / self.graphs[question]


def _check_version(path: Path, raw: dict[str, Any]) -> None:
    if raw.get("format") != FORMAT:
        raise BundleError(
            f'{path}: "format" must be "{FORMAT}", is {_shown(raw.get("format"))}; this is the manifest of something '
            "else"
        )
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise BundleError(f'{path}: "format_version" must be an integer from 1, is {_shown(version)}; {AGAIN}')
    if version > FORMAT_VERSION:
        by = raw.get("written_by")
        by = by if _is_line(by) else "an unnamed program"
        raise BundleError(
            f"{path}: format {_shown(version)}, written by {by}, is newer than this "
            f"reader, which knows formats up to {FORMAT_VERSION}; upgrade cflightning-serve"
        )


def _check_digest(path: Path, raw: dict[str, Any]) -> None:
    if type(raw.get("sha256")) is not str:
        raise BundleError(f'{path}: "sha256" must be a string, is of type {json_name(raw.get("sha256"))}; {AGAIN}')
    rest = {key: value for key, value in raw.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != raw["sha256"]:
        raise BundleError(f"{path}: its own sha256 does not fit what it says: damaged or edited by hand; {AGAIN}")


def _parse(folder: Path, raw: dict[str, Any], file_sha256: str) -> Manifest:
    path = folder / MANIFEST

    def check(holds: bool, key: str, must: str) -> None:
        if not holds:
            raise BundleError(f"{path}: {key} must be {must}; {AGAIN}")

    for key, kinds in (_KEYS | (_SINCE_2 if raw["format_version"] > 1 else {})).items():
        check(key in raw, f'"{key}"', "there, is missing")
        kind = type(raw[key])  # exact: true is no integer
        check(kind in kinds, f'"{key}"', f"{' or '.join(map(JSON_NAMES.__getitem__, kinds))}, is {json_name(raw[key])}")
    for key, least in (("dim", 0), ("num_users", 1), ("num_items", 1)):
        check(raw[key] >= least, f'"{key}"', f"at least {least}, is {_shown(raw[key])}")
        check(raw[key] <= _HIGHEST, f'"{key}"', f"at most {_HIGHEST}, is {_shown(raw[key])}")
    for key in ("written_by", "created", "model"):
        check(_is_line(raw[key]), f'"{key}"', f"one line of at most {_LONGEST} printable characters")
    for key in ("user", "item"):
        got = raw["ids"].get(key)
        check(got in ("int64", "string"), f'"ids" -> "{key}"', f'"int64" or "string", is {_shown(got)}')
    limits = raw["rating_range"]
    if limits is not None:
        fits = len(limits) == 2 and all(map(_is_finite, limits)) and limits[0] <= limits[1]
        fits = fits and limits[1] - limits[0] <= _FLOAT32
        check(fits, '"rating_range"', f"two numbers, the lower one first, as float32 holds them, is {_shown(limits)}")
    # What format 1 says under this key means nothing, as any key that it does not know.
    units = raw["units"] if raw["format_version"] > 1 else dict.fromkeys(SCORED, "rating")
    for question in SCORED:
        got = units.get(question)
        fits = type(got) is str and got in ("rating", "choice")
        check(fits, f'"units" -> "{question}"', f'"rating" or "choice", is {_shown(got)}')
    for key, value in raw["metrics"].items():
        check(_is_line(key), '"metrics"', f"of names of one line, has {_shown(key)}")
        check(type(value) in (int, float), f'"metrics" -> "{key}"', f"a number, is {json_name(value)}")
        check(_is_finite(value), f'"metrics" -> "{key}"', f"a finite number, is {_shown(value)}")
    for question in QUESTIONS:
        check(question in raw["graphs"], f'"graphs" -> "{question}"', "there, is missing")

    for name, entry in raw["files"].items():
        key = f'"files" -> {_quoted(name)}'
        fits = type(entry) is dict and type(entry.get("bytes")) is int and type(entry.get("sha256")) is str
        check(fits and 0 <= entry["bytes"] <= _HIGHEST, key, '{"bytes": integer, "sha256": string}')
        check(_is_plain_name(name), key, "a plain file name inside the folder")
    named = {f'"graphs" -> {_quoted(question)}': name for question, name in raw["graphs"].items()}
    named |= {f'"{key}"': raw[key] for key in ("titles", "catalogue") if raw.get(key) is not None}
    for key, name in named.items():
        check(type(name) is str and name in raw["files"], key, f'a file named in "files", is {_shown(name)}')
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
        file_sha256=file_sha256,
        **{key: raw[key] for key in _KEYS if key not in ("ids", "rating_range", "files")},
    )


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and _is_line(name) and not any(mark in name for mark in "/\\:")


def _is_line(text: object) -> bool:
    """Whether a text can stand in a log: one line, of no great length."""
    return isinstance(text, str) and len(text) <= _LONGEST and text.isprintable()


def _is_finite(value: object) -> bool:
    """Whether a number is one that float32 holds."""
    return type(value) in (int, float) and -_FLOAT32 <= cast(float, value) <= _FLOAT32


def _shown(value: object) -> str:
    """What a message quotes of a value, however long it is."""
    if type(value) is int and abs(value) > _HIGHEST:  # Python does not write integers of thousands of digits
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _quoted(name: str) -> str:
    """A key as messages name it."""
    return f'"{name}"' if _is_line(name) else _shown(name)
