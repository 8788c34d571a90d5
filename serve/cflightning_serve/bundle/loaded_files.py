"""The files of a bundle in memory, as they were when their digests were compared: nothing is read a second time."""

from collections.abc import Mapping
from pathlib import Path

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.files import read_verified
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.signatures import SIGNATURES


class LoadedFiles:
    """The bytes of a bundle's files. Made by :meth:`load`.

    Args:
        folder: where they lay, for messages.
        files: name -> bytes.
        verified: whether their digests were compared.
    """

    def __init__(self, folder: Path, files: Mapping[str, memoryview], *, verified: bool = True) -> None:
        self.folder = folder
        self.verified = verified
        self._files = dict(files)

    @classmethod
    def load(
        cls, manifest: Manifest, *, verify: bool = True, mapped: bool = False, cancellation: Cancellation | None = None
    ) -> "LoadedFiles":
        """Read every file that the manifest names.

        Args:
            manifest: of the bundle.
            verify: whether to compare the digests; lengths always are.
            mapped: whether tables are mapped from the folder rather than kept in memory of one's own: several
                processes share them, and whoever changes the file changes the answers, or ends the process.
            cancellation: gives up the load.

        Raises:
            BundleError: a file is missing or damaged.
        """
        graphs = {name for question, name in manifest.graphs.items() if question in SIGNATURES}
        texts = {manifest.titles, manifest.catalogue}
        unused = set(manifest.graphs.values()) - graphs - texts
        files = {
            name: read_verified(
                manifest.folder / name,
                entry,
                digest=verify,
                mapped=mapped and name not in graphs | texts | unused,
                keep=name not in unused,
                check=(cancellation or Cancellation()).check,
            )
            for name, entry in manifest.files.items()
        }
        return cls(manifest.folder, files, verified=verify)

    def path(self, name: str) -> Path:
        """Where a file lay."""
        return self.folder / name

    def view(self, name: str) -> memoryview:
        """The bytes of a file."""
        return self._files[name]

    def read(self, name: str) -> bytes:
        """A copy of the bytes of a file."""
        return bytes(self._files[name])

    def forget(self, *names: str) -> None:
        """Free the bytes of files that are not read again."""
        for name in names:
            self._files.pop(name, None)
