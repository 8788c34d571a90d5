"""Download of the MovieLens archives of GroupLens into the cache, verified by SHA-256."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import sys
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path

from tqdm import tqdm

from cflightning.errors import SourceError
from cflightning.utils.files import atomic_write
from cflightning.utils.locks import wait_for_lock

log = logging.getLogger(__name__)

BASE_URL = "https://files.grouplens.org/datasets/movielens"
_PLAIN_URL = BASE_URL.replace("https:", "http:")

# SHA-256 of the archives; the server publishes MD5 only.
ARCHIVES = {
    "ml-100k": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "ml-1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "ml-latest-small": "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",  # version of September 2018
    "ml-25m": "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
    "ml-32m": "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
}
MAX_BYTES = 1 << 30
"""Maximum size of a download, bytes; the largest archive has 262 MB."""
ALIASES = {"movielens-small": "ml-latest-small"}


def cache_dir() -> Path:
    """Return the folder of downloads: CFLIGHTNING_CACHE, else in the platform's cache folder."""
    if named := os.environ.get("CFLIGHTNING_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "cflightning"


def cached(name: str, cache: Path) -> Path | None:
    """Return the cached folder or zip archive of a data set, or None."""
    return next((path for path in (cache / name, cache / f"{name}.zip") if path.exists()), None)


def download(name: str, cache: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Download a MovieLens archive into the cache, with a progress bar on standard error.

    The source is GroupLens, or the folder of archives at the URL in CFLIGHTNING_MOVIELENS_URL. The archive is
    verified before it is renamed to its final name. Concurrent processes download it once.

    Args:
        name: Key of `ARCHIVES`.
        cache: Folder of the cache, created if missing.
        max_bytes: Maximum size of the download.

    Returns:
        Path of the zip archive.

    Raises:
        SourceError: No connection, no such file, too many bytes, or another digest.
    """
    url = f"{(os.environ.get('CFLIGHTNING_MOVIELENS_URL') or BASE_URL).rstrip('/')}/{name}.zip"
    if not url.startswith(("https://", "http://")):
        raise SourceError(f"{url}: must be an http(s) address")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{name}.zip"
    with wait_for_lock(cache / f".{name}.lock"):
        if target.exists():
            return target
        expected = ARCHIVES[name]
        with atomic_write(target, "wb") as out:
            actual = _fetch(url, out, max_bytes)
            if actual != expected:
                raise SourceError(
                    f"{url}: must have SHA-256 {expected}, got {actual} ({out.tell():,} bytes); "
                    "it is damaged or was changed: try again, or fetch and check it by hand and give --data.path"
                )
    log.info("%s kept as %s", url, target)
    return target


def _open(url: str) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "cflightning"})  # noqa: S310 (http(s) only, see download)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=30)  # noqa: S310
        return response
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # closes the response
        hint = ""
        if isinstance(reason, ssl.SSLCertVerificationError) and url.startswith(BASE_URL):
            hint = f"; without TLS, its SHA-256 is checked all the same: CFLIGHTNING_MOVIELENS_URL={_PLAIN_URL}"
        raise SourceError(f"{url}: cannot be fetched ({reason}){hint}") from error


def _fetch(url: str, out: object, max_bytes: int) -> str:
    """Copy a URL to an open file and return the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with _open(url) as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm.wrapattr(out, "write", total=size, desc=url.rsplit("/", 1)[-1], leave=False) as sink:
            try:
                fetched = 0
                while block := response.read(1 << 18):
                    fetched += len(block)
                    if fetched > max_bytes:
                        raise SourceError(
                            f"{url}: must have at most {max_bytes:,} bytes; it is not a MovieLens archive"
                        )
                    digest.update(block)
                    sink.write(block)
            except OSError as error:
                raise SourceError(f"{url}: broke off ({error}); try again") from error
    return digest.hexdigest()
