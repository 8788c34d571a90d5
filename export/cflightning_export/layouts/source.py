"""The bundle that a layout is made from: read, and checked to be intact."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from cflightning.errors import ExportError
from cflightning_export.bundle import manifest_digest
from cflightning_export.publish import FORMAT


class Bundle(NamedTuple):
    """A finished bundle.

    Attributes:
        folder: where it lies.
        manifest: what its `manifest.json` says.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def graphs(self) -> dict[str, Path]:
        """Question -> file of the graph that answers it; all that the manifest names."""
        return {question: self.folder / name for question, name in self.manifest["graphs"].items()}


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and hold its files against its manifest.

    Raises:
        ExportError: it is no bundle, or damaged.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        ours = manifest["format"] == FORMAT and manifest_digest(manifest) == manifest["sha256"]
        files, graphs = manifest["files"], manifest["graphs"]
    except OSError as error:
        raise ExportError(f"{folder}: must be a bundle, {path.name}: {error.strerror}; export one first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: must be the manifest of a bundle, is not; export the bundle again") from error
    if not ours or not set(graphs.values()) <= set(files) or not all(map(str.isidentifier, graphs)):
        raise ExportError(f"{path}: must be a bundle's as it was written, is not; export the bundle again")
    for name, entry in files.items():
        file = folder / name
        if Path(name).name != name or file.is_symlink() or not file.is_file():
            raise ExportError(f"{file}: must be a file of the bundle itself, is not; export the bundle again")
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != entry["sha256"]:
                raise ExportError(f"{file}: its sha256 is not the manifest's; export the bundle again")
    return Bundle(folder, manifest)
