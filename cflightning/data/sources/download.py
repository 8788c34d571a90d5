"""The MovieLens archives of GroupLens: where they lie, and one careful download into the cache."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cflightning.errors import SourceError
from cflightning.utils.files import replacing
from cflightning.utils.locks import waiting_for

log = logging.getLogger(__name__)

BASE_URL = "https://files.grouplens.org/datasets/movielens"
_PLAIN_URL = BASE_URL.replace("https:", "http:")

# SHA-256 of the archives. The server publishes only MD5, and from the same place as the archive.
ARCHIVES = {
    "ml-100k": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "ml-1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "ml-latest-small": "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",  # of September 2018
    "ml-25m": "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
    "ml-32m": "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
}
MAX_BYTES = 1 << 30
"""The size at which a download is broken off; the largest archive has 262 MB."""
ALIASES = {"movielens-small": "ml-latest-small"}


def cache_dir() -> Path:
    """The folder that downloads are kept in: CFLIGHTNING_CACHE, else the platform's cache folder."""
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
    """The folder or zip of data set `name` in the cache, or None."""
    return next((path for path in (cache / name, cache / f"{name}.zip") if path.exists()), None)


def download(name: str, cache: Path, base_url: str | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """Fetch a MovieLens archive into the cache; progress on standard error.

    The archive is written beside its place, checked against its SHA-256 and then moved in one step: a file of the
    right name is whole. Several processes that start at once fetch it once.

    Args:
        name: a key of `ARCHIVES`.
        cache: the folder to keep it in; made when missing.
        base_url: the folder that holds the archives; CFLIGHTNING_MOVIELENS_URL, else GroupLens.
        max_bytes: the size at which the download is broken off.

    Returns:
        The path of the zip.

    Raises:
        SourceError: no connection, no such file, too many bytes, or a digest that does not match.
    """
    url = f"{(base_url or os.environ.get('CFLIGHTNING_MOVIELENS_URL') or BASE_URL).rstrip('/')}/{name}.zip"
    if not url.startswith(("https://", "http://")):
        raise SourceError(f"{url}: must be an http(s) address")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{name}.zip"
    with waiting_for(cache / f".{name}.lock"):
        if target.exists():
            return target
        expected = ARCHIVES[name]
        with replacing(target, "wb") as out:
            actual = _fetch(url, out, max_bytes)
            if actual != expected:
                raise SourceError(
                    f"{url}: must have SHA-256 {expected}, got {actual} ({out.tell():,} bytes); "
                    "it is damaged or was changed: try again, or fetch and check it by hand and give --data.path"
                )
    log.info("%s kept as %s", url, target)
    return target


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "cflightning"})  # noqa: S310 (http(s) only, see download)
    try:
        return urllib.request.urlopen(request, timeout=30)  # noqa: S310
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is an open answer
        hint = ""
        if isinstance(reason, ssl.SSLCertVerificationError) and url.startswith(BASE_URL):
            # The digest protects the content, whatever the connection.
            hint = f"; without TLS, its SHA-256 is checked all the same: CFLIGHTNING_MOVIELENS_URL={_PLAIN_URL}"
        raise SourceError(f"{url}: cannot be fetched ({reason}){hint}") from error


def _fetch(url: str, out: object, max_bytes: int) -> str:
    """Copy `url` to the open file `out`; return the SHA-256 of its bytes."""
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
                            f"{url}: must have at most {max_bytes:,} bytes; it is no archive of MovieLens"
                        )
                    digest.update(block)
                    sink.write(block)
            except OSError as error:
                raise SourceError(f"{url}: broke off ({error}); try again") from error
    return digest.hexdigest()
