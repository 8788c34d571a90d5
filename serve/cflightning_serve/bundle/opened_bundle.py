"""An opened bundle: manifest, graphs, and titles and catalogue of its items."""

import os
from typing import Self

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.catalogue import Catalogue
from cflightning_serve.bundle.ids import RawId, RawIds, check_positive_integer, to_id_array
from cflightning_serve.bundle.item_metadata import ItemMetadata
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import InputError


class OpenedBundle:
    """A bundle in memory, opened by :meth:`load`: the base of ``Scorer``, without inference.

    Args:
        graphs: the bundle's graphs.
        metadata: titles and catalogue of the bundle's items.
    """

    def __init__(self, graphs: GraphSessions, metadata: ItemMetadata) -> None:
        self._graphs = graphs
        self._metadata = metadata

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        threads: int = 1,
        eager: bool = False,
        mapped: bool = False,
        digest: str | None = None,
        trusted_key: str | os.PathLike[str] | None = None,
        trust: Trust | None = None,
        cancellation: Cancellation | None = None,
    ) -> Self:
        """Load the bundle in the folder ``path``. The folder is not read again afterwards, unless ``mapped``.

        Args:
            path: folder of the bundle.
            verify: compare the digest of every file. False skips only that (about a second per GB); names, lengths
                and the manifest's own digest are always checked.
            threads: onnxruntime threads of one call, at least 1. 1 is right for a server with threads or processes.
            eager: open every graph and read titles and catalogue now instead of at their first use.
            mapped: memory-map the tables instead of copying them, so that processes share them. The files must then not
                be changed in place: that would change results or crash the process.
            digest: SHA-256 that the file ``manifest.json`` must have, hex.
            trusted_key: PEM file of the Ed25519 public key that must have signed the manifest (``manifest.json.sig``).
            trust: digest and key together, already parsed.
            cancellation: can stop the load.

        Raises:
            BundleError: the bundle is damaged, incomplete, edited, of a newer format, not trusted, or not a bundle.
            InputError: ``threads`` is not an integer from 1, or digest or key are invalid.
        """
        check_positive_integer("threads", threads)
        manifest = Manifest.read(path, trust or Trust.parse(digest, trusted_key))
        files = LoadedFiles.load(manifest, verify=verify, mapped=mapped, cancellation=cancellation)
        graphs, metadata = GraphSessions(manifest, files, threads), ItemMetadata(manifest, files)
        graphs.open("score", cancellation)
        if eager:
            metadata.read(cancellation)
            graphs.open_all(cancellation)
        return cls(graphs, metadata)

    def __repr__(self) -> str:
        manifest = self.manifest
        sizes = f"{manifest.num_users - 1:,} users, {manifest.num_items - 1:,} items"
        units = " and ".join(f"{unit}s" for unit in sorted(set(manifest.units.values())))
        return f"{type(self).__name__}({str(manifest.folder)[-80:]!r}, {manifest.model}, {sizes}, {units})"

    def release_in_steps(self) -> None:
        """Release an eagerly loaded bundle in the background, once nothing uses it, without stalling other threads."""
        self._graphs.release_in_steps()
        self._metadata.release_in_steps()

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._graphs.manifest

    @property
    def graphs(self) -> GraphSessions:
        """The graphs, for requests with raw tensors as specified in ``BUNDLE.md``."""
        return self._graphs

    @property
    def catalogue(self) -> Catalogue:
        """Ids of all items, their rating counts and categories."""
        return self._metadata.catalogue

    def title(self, item: RawId) -> str | None:
        """Return the title of one item, or None if the bundle has none for it."""
        titles = self.titles(item)
        if len(titles) != 1:
            raise InputError(f"title: item must be one id, got {len(titles)}; use titles for several")
        return titles[0]

    def titles(self, items: RawId | RawIds) -> list[str | None]:
        """Return the title of each item, None if the bundle has none for it."""
        ids, _ = to_id_array(items, self.manifest.item_ids, "item")
        titles = self._metadata.titles
        return [titles.get(str(item)) for item in ids]
