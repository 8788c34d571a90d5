"""A folder or a zip file, read the same way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.compression import DAMAGED, HEAD, read_all, recognise, refuse_documents, unpacked
from cflightning.data.sources.limits import check_size
from cflightning.errors import DataError


class TextFile(NamedTuple):
    """One file of a folder or zip, by the name that messages show."""

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
        """Return what the file's first bytes say: one of `compression.FORMATS`, `json` or `text`.

        Args:
            encoding: of text, as given.

        Raises:
            DataError: a format that is not read.
        """
        return recognise(self.head(), str(self), encoding)

    def source(self) -> Any:
        """Return what pyarrow reads a binary file from: its path, or its unpacked content."""
        import pyarrow as pa

        path = self.files.path / self.name
        return pa.BufferReader(self.read()) if self.files.is_packed(self.name) else str(path)


class _Opened(NamedTuple):
    """A file that is open.

    Attributes:
        stream: its content, unpacked.
        packed: its bytes on disk, if it is compressed or lies in a zip.
        size: its bytes unpacked, where known.
    """

    stream: IO[bytes]
    packed: int | None
    size: int | None


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
        """Base names, sorted."""
        return sorted(self._members)

    def file(self, name: str) -> TextFile:
        """The file `name` as something to read and to name in messages."""
        if name not in self._members:
            raise DataError(f"{self.path}: must contain {name}, found only {show_names(self.names()) or 'nothing'}")
        return TextFile(self, name)

    def read(self, name: str) -> bytes:
        """The content of one file, unpacked.

        Args:
            name: a base name, or the path inside.

        Raises:
            DataError: a damaged file, or more bytes than may be read.
        """
        with self._open(name) as opened:
            return read_all(opened.stream, str(TextFile(self, name)), opened.packed, opened.size)

    def check_sizes(self, names: Sequence[str]) -> None:
        """Refuse members of a zip that together are too large to be read.

        Raises:
            DataError: they are.
        """
        if self.is_zip:
            with zipfile.ZipFile(self.path) as archive:
                size = sum(archive.getinfo(self._members.get(name, name)).file_size for name in names)
            check_size(str(self.path), size, self.path.stat().st_size)

    def head(self, name: str) -> bytes:
        """The first bytes of one file, unpacked; arguments as for `read`."""
        with self._open(name) as opened:
            return opened.stream.read(HEAD)

    def is_packed(self, name: str) -> bool:
        """Whether a file is compressed, lies in a zip or comes through a pipe."""
        with self._open(name) as opened:
            return opened.packed is not None or name in self._piped

    def _open_path(self, name: str) -> IO[bytes]:
        """Open a file of a folder; the content of a pipe, which can be read once, is kept."""
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
        """Open one file and unpack it; the errors of doing so become DataErrors."""
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
                inner = unpacked(raw)
                if inner is not None:
                    yield _Opened(inner, on_disk, None)
                else:
                    yield _Opened(raw, on_disk if self.is_zip else None, size)
            except (RuntimeError, NotImplementedError) as error:  # encrypted; an unusual compression
                raise DataError(
                    f"{self.path}: {name} inside cannot be unpacked ({error}); unpack it by hand"
                ) from error
            except (*DAMAGED, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise DataError(f"{self.path / name}: cannot be read ({error.strerror})") from error
                damaged = f"{self.path}: {name} inside" if self.is_zip else f"{self.path / name}:"
                raise DataError(f"{damaged} is damaged ({error}); download it again") from error


def single_file(path: Path) -> TextFile:
    """A file given by its own path."""
    return TextFile(Files(path.parent), path.name)
