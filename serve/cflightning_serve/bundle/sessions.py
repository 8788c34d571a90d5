"""onnxruntime sessions of a bundle's graphs, each opened at its first use."""

import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.graph_validation import NUMPY_TYPES, validate_graph
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.onnx_reader import ExternalTensor
from cflightning_serve.bundle.release import release_in_steps
from cflightning_serve.bundle.signatures import SIGNATURES, signature
from cflightning_serve.errors import BundleError, InputError, NotFiniteError, UnsupportedError

if TYPE_CHECKING:
    import onnxruntime as ort

Array: TypeAlias = npt.NDArray[Any]
"""Input or output of a graph; its dtype is that of the signature."""
BLOCK_SIZE = 1 << 23
"""Largest number of elements of an array in one call of a graph; float32 takes 32 MiB."""
EXPORT_OPTIONS = {
    "seen": "the run's table available",
    "history": "--with-history",
    "fold_in_item": "--new-items",
    "similar_users": "a model whose scores are dot products",
}
"""Optional graph -> what its export needs."""
NAN_BLOCK_SIZE = 1 << 20
"""Elements of a table that are tested for NaN between two polls of the cancellation."""
_ONE_BLOCK = (slice(None),)
_FLOAT32 = np.dtype(np.float32)
_EXPONENT_BYTE = 3 if sys.byteorder == "little" else 0
_MAX_BYTEWISE_SIZE = 1000
"""Array size up to which copying the bytes is faster than arithmetic."""


class GraphSessions:
    """The sessions of one bundle; safe to share between threads.

    Args:
        manifest: the bundle's manifest.
        files: the bundle's files.
        threads: onnxruntime threads of one call.
        block_size: largest number of elements of an array in one call, see :meth:`blocks`.
    """

    def __init__(
        self, manifest: Manifest, files: LoadedFiles, threads: int = 1, *, block_size: int = BLOCK_SIZE
    ) -> None:
        self.manifest = manifest
        self.files = files
        self.block_size = block_size
        self.tables: list[Array] = []
        """Arrays in the memory of the bundle's files that open sessions read."""
        self._threads = threads
        self._lock = threading.Lock()
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._ort_values: list[ort.OrtValue] = []  # kept alive for the sessions
        self._tables_without_nan: set[tuple[str, int, int, int]] = set()
        self._run_options: ort.RunOptions | None = None

    def run(self, graph: str, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Run a graph and return the named outputs; all numbers are finite, except -inf of fillers.

        Raises:
            BundleError: the graph cannot be opened or fails.
            NotFiniteError: an output contains NaN or infinity.
            UnsupportedError: the bundle has no such graph.
            InputError: a string id is not valid Unicode.
        """
        session = self._sessions.get(graph) or self.open(graph)
        try:
            arrays: list[Array] = session.run(outputs, inputs, self._run_options)
        except UnicodeEncodeError as error:  # an unpaired surrogate, which JSON can contain
            raise InputError(f"ids: must be valid Unicode, got {error.object!r}") from error
        except Exception as error:  # onnxruntime's exceptions have no common base class
            path = self.manifest.path(graph)
            raise BundleError(f"{path}: the graph failed: {error}; export the bundle again") from error
        for array in arrays:
            if array.dtype is _FLOAT32 and may_be_infinite(array):
                self._require_finite(graph, outputs, arrays)
                break
        return arrays

    def blocks(self, count: int, width: int) -> Sequence[slice]:
        """Split ``count`` rows of ``width`` elements into slices of at most ``block_size`` elements; at least one."""
        step = max(1, self.block_size // max(1, width))
        if count <= step:
            return _ONE_BLOCK
        return [slice(start, start + step) for start in range(0, count, step)]

    def open(self, graph: str, cancellation: Cancellation | None = None) -> "ort.InferenceSession":
        """Return the session of a graph, opened if necessary.

        Raises:
            BundleError: the graph cannot be opened.
            UnsupportedError: the bundle has no such graph.
        """
        if graph not in self.manifest.graphs:
            raise UnsupportedError(
                f"{self.manifest.folder}: has no graph {graph!r}; export the bundle again with "
                f"{EXPORT_OPTIONS.get(graph, 'it')}"
            )
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._create(graph, cancellation or Cancellation())
            return self._sessions[graph]

    def open_all(self, cancellation: Cancellation | None = None) -> None:
        """Open every graph that this reader supports.

        Raises:
            BundleError: a graph cannot be opened.
        """
        for graph in filter(SIGNATURES.__contains__, self.manifest.graphs):
            self.open(graph, cancellation)
        self.files.release(*self.manifest.graphs.values())

    def release_in_steps(self) -> None:
        """Release the sessions one after the other, in a background thread, once nothing uses them."""
        release_in_steps(self, self._sessions, 1)

    @contextmanager
    def cancelled_by(self, cancellation: Cancellation) -> Iterator[None]:
        """Terminate calls within the block, with an error, if the load is cancelled."""
        import onnxruntime as ort

        options = self._run_options = ort.RunOptions()
        try:
            with cancellation.on_cancel(lambda: setattr(options, "terminate", True)):
                yield
        finally:
            self._run_options = ort.RunOptions()

    def _require_finite(self, graph: str, outputs: Sequence[str], arrays: list[Array]) -> None:
        for output, array in zip(outputs, arrays, strict=True):
            if array.dtype == _FLOAT32:
                filler = -np.inf if output in SIGNATURES[graph].padded else np.nan
                count = int(np.count_nonzero(~np.isfinite(array) & (array != filler)))
                if count:
                    raise NotFiniteError(
                        f"{self.manifest.path(graph)}: {output} must be finite numbers, has {count:,} that are not; "
                        "export the bundle again, unless the request had extreme numbers"
                    )

    def _create(self, graph: str, cancellation: Cancellation) -> "ort.InferenceSession":
        import onnxruntime as ort  # here, so that a damaged bundle is refused without it

        name = self.manifest.graphs[graph]
        path, model = self.files.path(name), self.files.read(name)
        external = validate_graph(path, model, self.manifest.files)
        tables = [self._table(tensor, cancellation) for tensor in external]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads  # the default counts the machine's cores, not the container's
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors are raised; warnings are of no use here
        # Prepacking would copy the item table for each session, and calls are as fast without it.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Otherwise a file with the magic bytes of onnxruntime's own format is read as such, without validation.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            values = [ort.OrtValue.ortvalue_from_numpy(table) for table in tables]
            if values:
                # The first call serves constant folding and is released again, the second the runs, without a copy.
                options.add_external_initializers([tensor.name for tensor in external], values)
            for tensor, value in zip(external, values, strict=True):
                options.add_initializer(tensor.name, value)
            with cancellation.on_cancel(lambda: options.set_load_cancellation_flag(True)):
                session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class
            cancellation.check()
            raise BundleError(f"{path}: onnxruntime cannot open it: {error}; export the bundle again") from error
        actual = tuple(
            {argument.name: argument.type for argument in side}
            for side in (session.get_inputs(), session.get_outputs())
        )
        for side, must, got in zip(("inputs", "outputs"), signature(self.manifest, graph), actual, strict=True):
            if must != got:
                raise BundleError(f"{path}: {side} must be {must}, are {got}; export the bundle again")
        self.tables += tables
        self._ort_values += values
        self._run_options = self._run_options or ort.RunOptions()  # else each call makes its own, in 1 us
        return session

    def _table(self, tensor: ExternalTensor, cancellation: Cancellation) -> Array:
        """Return a tensor in the memory of its file, without a copy, after one test for NaN."""
        dtype = np.dtype(NUMPY_TYPES[tensor.type])
        length = math.prod(tensor.shape) * dtype.itemsize
        data = self.files.view(tensor.location)[tensor.offset : tensor.offset + length]
        table = np.require(np.frombuffer(data, dtype).reshape(tensor.shape), requirements="A")
        key = (tensor.location, tensor.offset, tensor.type, length)
        if dtype.kind == "f" and self.files.verified and key not in self._tables_without_nan:
            for begin in range(0, table.size, NAN_BLOCK_SIZE):
                cancellation.check()
                if has_nan(table.reshape(-1)[begin : begin + NAN_BLOCK_SIZE]):
                    raise BundleError(
                        f"{self.files.path(tensor.location)}: tables must not contain NaN, {tensor.name[:60]!r} does; "
                        "train and export again"
                    )
            self._tables_without_nan.add(key)
        return table


def has_nan(values: npt.NDArray[np.floating[Any]]) -> bool:
    """Return whether an array of float16, float32 or float64 [n] contains NaN; infinity does not count."""
    if values.dtype == np.float16:
        return bool((values.view(np.uint16) & 0x7FFF).max(initial=0) > 0x7C00)
    with np.errstate(all="ignore"):
        return bool(np.isnan(values.dot(values)))


def may_be_infinite(values: npt.NDArray[np.float32]) -> bool:
    """Return whether float32 values of any shape may contain NaN or infinity; fast, and never wrong if it is False."""
    if values.size > _MAX_BYTEWISE_SIZE:
        flat = values.reshape(-1)
        with np.errstate(all="ignore"):
            return not math.isfinite(flat.dot(flat))  # NaN and infinity survive in the sum of squares
    exponents = values.tobytes()[_EXPONENT_BYTE::4]  # sign and seven of eight bits of the exponent
    return 0x7F in exponents or 0xFF in exponents
