"""The manifest of a bundle, ``manifest.json``: reading and writing it, and verifying the files that it lists."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from cflightning_serve.bundle.files import (
    REMEDY,
    FileEntry,
    locate_folder,
    os_errors_as_bundle_errors,
    read_bytes,
    read_verified,
)
from cflightning_serve.bundle.manifest_validation import FORMAT as FORMAT
from cflightning_serve.bundle.manifest_validation import FORMAT_VERSION as FORMAT_VERSION
from cflightning_serve.bundle.manifest_validation import (
    manifest_digest,
    validate_contents,
    validate_digest,
    validate_version,
)
from cflightning_serve.bundle.reference import SCORED_GRAPHS, Reference, parse_reference
from cflightning_serve.bundle.strict_json import Json, parse_object
from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import BundleError

MANIFEST = "manifest.json"
IdType = Literal["int64", "string"]
Unit = Literal["rating", "choice"]
"""Unit of scores: "rating" for rating units, "choice" for none (only the order within one user has a meaning)."""


@dataclass(frozen=True)
class Comparison:
    """Ranking models that were measured beside the one in the bundle."""

    validation: Mapping[str, float] = field(default_factory=dict)
    """Description of each trained model -> its nDCG@10 on validation rows; empty if only one was trained."""
    chosen: str = ""
    """Description of the one in the bundle."""
    test: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Baseline -> metric -> value on the test rows; the metrics of the bundle's model are in ``metrics``."""


@dataclass(frozen=True)
class Manifest:
    """The contents of ``manifest.json``; ``serve/BUNDLE.md`` explains the keys."""

    folder: Path
    """Folder of the bundle, with symbolic links resolved."""
    format_version: int
    written_by: str
    created: str
    model: str
    dim: int
    user_ids: IdType
    item_ids: IdType
    num_users: int
    """Known users and the unknown one."""
    num_items: int
    """Known items and the unknown one."""
    rating_range: tuple[float, float] | None
    units: Mapping[str, Unit]
    """Units of the scores of ``score`` and ``recommend``; always ratings in format 1."""
    metrics: Mapping[str, float]
    graphs: Mapping[str, str]
    """Graph -> file name."""
    titles: str | None
    catalogue: str | None
    files: Mapping[str, FileEntry]
    sha256: str
    """Digest of the contents, as listed in the manifest."""
    reference: Mapping[str, Reference] = field(default_factory=dict)
    comparison: Comparison = field(default_factory=Comparison)
    file_sha256: str = ""
    """Digest of the file ``manifest.json``."""

    @classmethod
    def read(cls, folder: str | os.PathLike[str], trust: Trust | None = None) -> "Manifest":
        """Read and validate the manifest of the bundle in ``folder``; no other file is read.

        Args:
            folder: the bundle.
            trust: the digest or the signature that the manifest must have.

        Raises:
            BundleError: the folder is not a bundle, or its manifest is damaged, edited, incomplete, of a newer format,
                or not trusted.
        """
        root = locate_folder(Path(folder))
        with os_errors_as_bundle_errors(root):
            if not root.is_dir():
                got = "is a file" if root.exists() else "does not exist"
                raise BundleError(f"{root}: must be the folder of a bundle, {got}; give the folder that export wrote")
            root = root.resolve()  # a link to the folder may be changed to the next bundle later
        path = root / MANIFEST
        data = read_bytes(path)
        if trust is not None:
            trust.check(path, data)
        raw = parse_object(path, data)
        validate_version(path, raw)
        validate_digest(path, raw)
        validate_contents(path, raw)
        try:
            reference = parse_reference(raw.get("reference"))
        except (ValueError, OverflowError) as error:
            raise BundleError(f'{path}: "reference" must be {error}; {REMEDY}') from error
        return cls._from_json(root, raw, reference, hashlib.sha256(data).hexdigest())

    @classmethod
    def _from_json(
        cls, folder: Path, raw: Mapping[str, Json], reference: Mapping[str, Reference], file_sha256: str
    ) -> "Manifest":
        limits, comparison = raw["rating_range"], raw.get("comparison") or {}
        # Format 1 has no units; a key of this name is ignored there as any unknown key.
        units: Mapping[str, Unit] = raw["units"] if raw["format_version"] > 1 else {}
        return cls(
            folder=folder,
            format_version=raw["format_version"],
            written_by=raw["written_by"],
            created=raw["created"],
            model=raw["model"],
            dim=raw["dim"],
            user_ids=raw["ids"]["user"],
            item_ids=raw["ids"]["item"],
            num_users=raw["num_users"],
            num_items=raw["num_items"],
            rating_range=None if limits is None else (float(limits[0]), float(limits[1])),
            units={graph: units.get(graph, "rating") for graph in SCORED_GRAPHS},
            metrics=raw["metrics"],
            graphs=raw["graphs"],
            titles=raw["titles"],
            catalogue=raw.get("catalogue"),  # absent in bundles of older versions
            files={name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in raw["files"].items()},
            sha256=raw["sha256"],
            reference=reference,
            comparison=Comparison(
                comparison.get("validation", {}), comparison.get("chosen", ""), comparison.get("test", {})
            ),
            file_sha256=file_sha256,
        )

    def verify(self, *, digests: bool = True, check: Callable[[], None] = lambda: None) -> None:
        """Check that every listed file is present and has the listed length and digest.

        Args:
            digests: whether to compare the digests.
            check: called between blocks of the files; may raise.

        Raises:
            BundleError: a file is missing, is a symbolic link, or differs from the manifest.
        """
        for name, entry in self.files.items():
            read_verified(self.folder / name, entry, digest=digests, keep=False, check=check)

    @cached_property
    def seen_graph(self) -> str | None:
        """The graph that returns the seen items: of the whole table, or, in older bundles, of the training part."""
        return next((graph for graph in ("seen", "history") if graph in self.graphs), None)

    def path(self, graph: str) -> Path:
        """Return the file of a graph."""
        return self.folder / self.graphs[graph]


def describe_file(path: Path) -> dict[str, Json]:
    """Return the manifest's entry of a file: its length in bytes and its SHA-256 digest."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_manifest(folder: Path, raw: Mapping[str, Json]) -> None:
    """Write ``manifest.json`` with its own digest; ``raw`` has all other keys."""
    text = json.dumps({**raw, "sha256": manifest_digest(raw)}, ensure_ascii=False, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
