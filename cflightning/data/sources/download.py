"""The MovieLens archives of GroupLens: where they lie, and one careful download into the cache."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cflightning.errors import SourceError
from cflightning.files import replacing
from cflightning.locks import waiting_for

log = logging.getLogger(__name__)

BASE_URL = "https://files.grouplens.org/datasets/movielens"

# MD5 as GroupLens publishes it (the only digest they give). None: the archive is renewed from time to time, and the
# digest is read from the `.md5` file beside it.
ARCHIVES: dict[str, str | None] = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-latest-small": None,
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}
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


def download(name: str, cache: Path, base_url: str | None = None) -> Path:
    """Fetch a MovieLens archive into the cache; progress on standard error.

    The archive is written beside its place, checked against its MD5 and then moved in one step, so that whatever has
    the right name is whole. Several processes that start at once fetch it once.

    Args:
        name: a key of `ARCHIVES`.
        cache: the folder to keep it in; made when missing.
        base_url: the folder that holds the archives; CFLIGHTNING_MOVIELENS_URL, else GroupLens.

    Returns:
        The path of the zip.

    Raises:
        SourceError: no connection, no such file, or a digest that does not match.
    """
    url = f"{(base_url or os.environ.get('CFLIGHTNING_MOVIELENS_URL') or BASE_URL).rstrip('/')}/{name}.zip"
    if not url.startswith(("https://", "http://")):
        raise SourceError(f"{url}: must be an http(s) address")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{name}.zip"
    with waiting_for(cache / f".{name}.lock"):
        if target.exists():
            return target
        expected = ARCHIVES[name] or _published_md5(f"{url}.md5")
        with replacing(target, "wb") as out:
            actual = _fetch(url, out)
            if actual != expected:
                raise SourceError(
                    f"{url}: must have MD5 {expected}, got {actual} ({out.tell():,} bytes); "
                    "it is damaged or was changed: try again, or fetch it by hand and give --data.path"
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
        raise SourceError(f"{url}: cannot be fetched ({reason})") from error


def _fetch(url: str, out: object) -> str:
    """Copy `url` to the open file `out`; return the MD5 of what came."""
    digest = hashlib.md5(usedforsecurity=False)
    with _open(url) as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm.wrapattr(out, "write", total=size, desc=url.rsplit("/", 1)[-1], leave=False) as sink:
            try:
                while block := response.read(1 << 18):
                    digest.update(block)
                    sink.write(block)
            except OSError as error:
                raise SourceError(f"{url}: broke off ({error}); try again") from error
    return digest.hexdigest()


def _published_md5(url: str) -> str:
    """The digest in a `.md5` file, written either the BSD or the GNU way."""
    with _open(url) as response:
        text = response.read(1024).decode("ascii", errors="replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if found is None:
        raise SourceError(f"{url}: must hold an MD5 digest, got {text[:60]!r}")
    return found.group().lower()
