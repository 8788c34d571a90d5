"""The files of a bundle in memory, read once: the bytes in use are those whose digests were compared."""

from collections.abc import Mapping
from pathlib import Path

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.files import read_verified
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.signatures import SIGNATURES


class LoadedFiles:
    """The bytes of a bundle's files. Created by :meth:`load`.

    Args:
        folder: folder of the bundle, for messages.
        files: file name -> bytes.
        verified: whether the digests were compared.
    """

    def __init__(self, folder: Path, files: Mapping[str, memoryview], *, verified: bool) -> None:
        self.folder = folder
        self.verified = verified
        self._files = dict(files)

    @classmethod
    def load(
        cls, manifest: Manifest, *, verify: bool = True, mapped: bool = False, cancellation: Cancellation | None = None
    ) -> "LoadedFiles":
        """Read every file that the manifest lists.

        Args:
            manifest: the bundle's manifest.
            verify: whether to compare the digests; lengths are always compared.
            mapped: whether to memory-map the tables instead of copying them, so that several processes share them.
                A change of the file then changes the results or crashes the process.
            cancellation: can stop the load.

        Raises:
            BundleError: a file is missing or damaged, or the load was cancelled.
        """
        graphs = {name for graph, name in manifest.graphs.items() if graph in SIGNATURES}
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
        """Return the path that a file was read from."""
        return self.folder / name

    def view(self, name: str) -> memoryview:
        """Return the bytes of a file without a copy."""
        return self._files[name]

    def read(self, name: str) -> bytes:
        """Return a copy of the bytes of a file."""
        return bytes(self._files[name])

    def release(self, *names: str) -> None:
        """Release the bytes of files that are not read again."""
        for name in names:
            self._files.pop(name, None)
