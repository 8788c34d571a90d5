"""Files of a folder or a zip archive, through one interface."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.compression import (
    DAMAGED,
    HEAD,
    ByteStream,
    decompressed,
    detect_format,
    read_all,
    refuse_documents,
)
from cflightning.data.sources.limits import check_size
from cflightning.errors import DataError


class SourceFile(NamedTuple):
    """A file in a folder or a zip archive; ``str(file)`` is its name in messages."""

    files: Files
    name: str

    def __str__(self) -> str:
        return f"{self.files.path}:{self.name}" if self.files.is_zip else str(self.files.path / self.name)

    def read(self) -> bytes:
        """Return the file's content, unpacked."""
        return self.files.read(self.name)

    def head(self) -> bytes:
        """Return the first bytes, unpacked."""
        return self.files.head(self.name)

    def format(self, encoding: str | None = None) -> str:
        """Detect the format from the first bytes: one of `compression.FORMATS`, `json` or `text`.

        Args:
            encoding: Text encoding that the user named, or None.

        Raises:
            DataError: The format is not supported.
        """
        return detect_format(self.head(), str(self), encoding)

    def source(self) -> str | pa.BufferReader:
        """Return the argument from which pyarrow reads a binary file: its path, or a buffer of its unpacked content."""
        path = self.files.path / self.name
        return pa.BufferReader(self.read()) if self.files.is_packed(self.name) else str(path)


class _Opened(NamedTuple):
    """An open file.

    Attributes:
        stream: Unpacked content.
        packed: Bytes on disk if the file is compressed or in a zip archive, else None.
        size: Unpacked bytes, where known.
    """

    stream: ByteStream
    packed: int | None
    size: int | None


class Files:
    """The files directly in a folder, or anywhere in a zip archive, found by base name.

    Nothing is extracted to disk, so member names of an archive are never used as paths.

    Raises:
        DataError: The path is neither a folder nor a readable zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_zip = not path.is_dir()
        self._members: dict[str, str] = {}
        self._piped: dict[str, bytes] = {}
        self.paths: list[str] = []
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
            refuse_documents(str(path), names)
            # The shallowest file of a name wins: ml-100k.zip has one folder, others none.
            for name in sorted(names, key=lambda n: n.count("/"), reverse=True):
                self._members[name.rsplit("/", 1)[-1]] = name
            self.paths = sorted(set(names))
        else:
            try:
                self._members = {entry.name: entry.name for entry in path.iterdir() if entry.is_file()}
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
            self.paths = sorted(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Return the base names, sorted."""
        return sorted(self._members)

    def file(self, name: str) -> SourceFile:
        """Return the file of a base name.

        Raises:
            DataError: There is none.
        """
        if name not in self._members:
            raise DataError(f"{self.path}: must contain {name}, found only {show_names(self.names()) or 'nothing'}")
        return SourceFile(self, name)

    def read(self, name: str) -> bytes:
        """Return the unpacked content of one file.

        Args:
            name: Base name, or path inside the folder or archive.

        Raises:
            DataError: The file is damaged, or larger than the limits allow.
        """
        with self._open(name) as opened:
            return read_all(opened.stream, str(SourceFile(self, name)), opened.packed, opened.size)

    def check_sizes(self, names: Sequence[str]) -> None:
        """Check the total size of members of a zip archive against the limits.

        Raises:
            DataError: They are too large.
        """
        if self.is_zip:
            with zipfile.ZipFile(self.path) as archive:
                size = sum(archive.getinfo(self._members.get(name, name)).file_size for name in names)
            check_size(str(self.path), size, self.path.stat().st_size)

    def head(self, name: str) -> bytes:
        """Return the first unpacked bytes of one file; arguments as for `read`."""
        with self._open(name) as opened:
            return opened.stream.read(HEAD)

    def is_packed(self, name: str) -> bool:
        """Return whether a file is compressed, in a zip archive or a pipe."""
        with self._open(name) as opened:
            return opened.packed is not None or name in self._piped

    def _open_path(self, name: str) -> io.BufferedReader:
        """Open a file of a folder; the content of a pipe is kept, since it can be read only once."""
        path = self.path / name
        if not path.is_fifo():
            if path.exists() and not path.is_file():
                raise DataError(f"{path}: must be a file, a folder or a pipe")
            return open(path, "rb")
        if name not in self._piped:
            with open(path, "rb") as pipe:
                self._piped[name] = read_all(pipe, str(path), None)
        return io.BufferedReader(io.BytesIO(self._piped[name]))

    @contextmanager
    def _open(self, name: str) -> Iterator[_Opened]:
        """Open and decompress one file; errors of both become DataErrors."""
        with ExitStack() as stack:
            try:
                if self.is_zip:
                    archive = stack.enter_context(zipfile.ZipFile(self.path))
                    member = archive.getinfo(self._members.get(name, name))
                    raw: Any = stack.enter_context(archive.open(member))
                    on_disk, size = member.compress_size, member.file_size
                else:
                    raw = stack.enter_context(self._open_path(name))
                    on_disk = size = raw.seek(0, io.SEEK_END)
                    raw.seek(0)
                inner = decompressed(raw)
                if inner is not None:
                    yield _Opened(inner, on_disk, None)
                else:
                    yield _Opened(raw, on_disk if self.is_zip else None, size)
            except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unsupported compression
                raise DataError(
                    f"{self.path}: {name} inside cannot be unpacked ({error}); unpack it by hand"
                ) from error
            except (*DAMAGED, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise DataError(f"{self.path / name}: cannot be read ({error.strerror})") from error
                damaged = f"{self.path}: {name} inside" if self.is_zip else f"{self.path / name}:"
                raise DataError(f"{damaged} is damaged ({error}); download it again") from error
