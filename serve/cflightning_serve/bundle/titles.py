"""Titles of a bundle: item id -> title."""

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.files import decompress, parse_json
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.errors import BundleError


def read_titles(manifest: Manifest, contents: LoadedFiles, cancellation: Cancellation | None = None) -> dict[str, str]:
    """Read the titles of a bundle; none where it has no file of them.

    Args:
        manifest: of the bundle.
        contents: its files.
        cancellation: gives up the reading, which then makes room for other threads.

    Returns:
        Item id as a string -> title. Ids without a title are missing.

    Raises:
        BundleError: the file cannot be read, or holds something else.
    """
    if manifest.titles is None:
        return {}
    path = contents.path(manifest.titles)
    titles = parse_json(
        path, decompress(path, contents.read(manifest.titles)), None if cancellation is None else cancellation.check
    )
    if type(titles) is not dict or not set(map(type, titles.values())) <= {str}:
        raise BundleError(f"{path}: must be one JSON object of item id -> title; export the bundle again")
    return titles
