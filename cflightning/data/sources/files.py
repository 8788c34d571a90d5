"""A folder or a zip file, read the same way."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from cflightning.errors import DataError

GZIP = b"\x1f\x8b"


class TextFile(NamedTuple):
    """One file of a folder or zip, by the name that messages show."""

    files: Files
    name: str

    def __str__(self) -> str:
        return f"{self.files.path}:{self.name}" if self.files.is_zip else str(self.files.path / self.name)

    def read(self) -> bytes:
        """The file's content."""
        return self.files.read(self.name)

    def line(self, row: int, *, header: bool) -> int:
        """The 1-based line on which data row `row` (0-based) stands; empty lines are no rows. For messages only."""
        wanted = row + (1 if header else 0)
        inside_quotes = False
        for number, text in enumerate(self.read().splitlines(), start=1):
            if text and not inside_quotes:
                if wanted == 0:
                    return number
                wanted -= 1
            inside_quotes ^= text.count(b'"') % 2 == 1
        return wanted


class Files:
    """The files of a folder (not below it) or of a zip (anywhere inside), found by base name.

    Nothing is unpacked to disk, so names inside a zip cannot point anywhere.

    Raises:
        DataError: the path is neither a folder nor a sound zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_zip = not path.is_dir()
        self._members: dict[str, str] = {}
        if self.is_zip:
            try:
                size = path.stat().st_size
                with zipfile.ZipFile(path) as archive:
                    names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
            except zipfile.BadZipFile as error:
                raise DataError(
                    f"{path}: must be a zip file, but it cannot be read as one ({size:,} bytes; {error}); "
                    "it is probably cut off: download it again"
                ) from error
            # The shallowest file of a name wins: ml-100k.zip has one folder, others none.
            for name in sorted(names, key=lambda n: n.count("/"), reverse=True):
                self._members[name.rsplit("/", 1)[-1]] = name
        else:
            try:
                self._members = {entry.name: entry.name for entry in path.iterdir() if entry.is_file()}
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Base names, sorted."""
        return sorted(self._members)

    def file(self, name: str) -> TextFile:
        """The file `name` as something to read and to name in messages."""
        if name not in self._members:
            raise DataError(f"{self.path}: must contain {name}, found only {', '.join(self.names()[:8]) or 'nothing'}")
        return TextFile(self, name)

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            DataError: a damaged member of a zip.
        """
        try:
            if not self.is_zip:
                raw = (self.path / name).read_bytes()
                return gzip.decompress(raw) if raw[:2] == GZIP else raw
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._members[name])
        except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DataError(f"{self.path}: {name} inside is damaged ({error}); download it again") from error
        except (RuntimeError, NotImplementedError) as error:  # encrypted; an unusual compression
            raise DataError(f"{self.path}: {name} inside cannot be unpacked ({error}); unpack it by hand") from error
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be read ({error.strerror})") from error


def single_file(path: Path) -> TextFile:
    """A file given by its own path."""
    return TextFile(Files(path.parent), path.name)
