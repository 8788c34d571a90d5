"""The bundle that a layout is made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from cflightning.errors import ExportError
from cflightning_serve.bundle.manifest import MANIFEST, Manifest
from cflightning_serve.bundle.strict_json import Json
from cflightning_serve.errors import BundleError


class Bundle(NamedTuple):
    """A finished bundle.

    Attributes:
        folder: its folder.
        manifest: the contents of its `manifest.json`.
    """

    folder: Path
    manifest: dict[str, Json]

    @property
    def graphs(self) -> dict[str, Path]:
        """Graph -> its file, for all that the manifest names."""
        return {name: self.folder / file for name, file in self.manifest["graphs"].items()}


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and compare its files with its manifest.

    Raises:
        ExportError: it is not a bundle, or damaged.
    """
    try:
        manifest = Manifest.read(folder)
        manifest.verify()
    except BundleError as error:
        raise ExportError(str(error)) from error
    if not all(map(str.isidentifier, manifest.graphs)):
        raise ExportError(f"{folder / MANIFEST}: names of graphs must be identifiers; export the bundle again")
    return Bundle(folder, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
