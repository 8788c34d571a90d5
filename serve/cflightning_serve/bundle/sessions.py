"""The graphs of a bundle as onnxruntime sessions, each opened when it is first asked."""

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.graph_validation import TYPES, validate_graph
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.onnx_reader import ExternalTensor
from cflightning_serve.bundle.release import release_in_steps
from cflightning_serve.bundle.signatures import FILLED, SIGNATURES, signature
from cflightning_serve.errors import BundleError, InputError, NotFiniteError, UnsupportedError

if TYPE_CHECKING:
    import onnxruntime as ort

_OPTIONS = {"seen": "the run's table at hand", "history": "--with-history", "fold_in_item": "--new-items"}
"""Questions that are answered where the export was told so."""
_FLOAT32 = np.dtype(np.float32)
_HIGH_BYTE = 3 if sys.byteorder == "little" else 0
_FEW = 1000
"""Numbers up to which a copy of their bytes is quicker than arithmetic."""
_LOOK = 1 << 20
"""Numbers that are looked at in one go."""


class GraphSessions:
    """The sessions of one bundle; safe to share between threads.

    Args:
        manifest: the bundle's manifest.
        contents: the bundle's files.
        threads: threads of onnxruntime inside one call.
    """

    def __init__(self, manifest: Manifest, contents: LoadedFiles, threads: int) -> None:
        self._manifest = manifest
        self._contents = contents
        self._threads = threads
        self._lock = threading.Lock()
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._tables: list[Any] = []  # the memory that sessions read from
        self._verified = contents.verified
        self._finite: set[tuple[str, int, int, int]] = set()  # places of tables without NaN
        self._run_options: ort.RunOptions | None = None

    def run(self, question: str, outputs: Sequence[str], feeds: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Ask the graph that answers ``question`` for the named outputs; numbers are finite, but for fillers of lists.

        Raises:
            BundleError: the graph cannot be opened or fails.
            NotFiniteError: its answer holds NaN or infinity.
            UnsupportedError: the bundle has no such graph.
            InputError: a string id is no valid Unicode.
        """
        session = self._sessions.get(question) or self.open(question)
        try:
            answer: list[npt.NDArray[Any]] = session.run(outputs, feeds, self._run_options)
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON can smuggle in
            raise InputError(f"ids: must be valid Unicode, got {error.object!r}") from error
        except Exception as error:  # onnxruntime's own errors have no common base
            path = self._manifest.path(question)
            raise BundleError(f"{path}: the graph failed: {error}; export the bundle again") from error
        for values in answer:
            if values.dtype is _FLOAT32 and may_be_infinite(values):
                self._refuse_infinite(question, outputs, answer)
                break
        return answer

    def open(self, question: str, cancellation: Cancellation | None = None) -> "ort.InferenceSession":
        """Open a graph unless it is open.

        Raises:
            BundleError: it cannot be opened.
            UnsupportedError: the bundle has no such graph.
        """
        if question not in self._manifest.graphs:
            raise UnsupportedError(
                f"{self._manifest.folder}: has no graph that answers {question!r}; export the bundle again with "
                f"{_OPTIONS.get(question, 'it')}"
            )
        with self._lock:
            if question not in self._sessions:
                self._sessions[question] = self._session(question, cancellation or Cancellation())
            return self._sessions[question]

    def open_all(self, cancellation: Cancellation | None = None) -> None:
        """Open every graph that this reader knows.

        Raises:
            BundleError: one cannot be opened.
        """
        for question in filter(SIGNATURES.__contains__, self._manifest.graphs):
            self.open(question, cancellation)
        self._contents.forget(*self._manifest.graphs.values())

    def release_in_steps(self) -> None:
        """Have the sessions freed one after the other, in a thread, once nobody uses them."""
        release_in_steps(self, self._sessions, 1)

    @contextmanager
    def cancelled_by(self, cancellation: Cancellation) -> Iterator[None]:
        """Have calls within the block end, with an error, when a load is given up."""
        import onnxruntime as ort

        options = self._run_options = ort.RunOptions()
        try:
            with cancellation.on_cancel(lambda: setattr(options, "terminate", True)):
                yield
        finally:
            self._run_options = None

    def _refuse_infinite(self, question: str, outputs: Sequence[str], answer: list[npt.NDArray[Any]]) -> None:
        for output, values in zip(outputs, answer, strict=True):
            if values.dtype == _FLOAT32:
                filler = -np.inf if output in FILLED.get(question, ()) else np.nan
                wrong = int(np.count_nonzero(~np.isfinite(values) & (values != filler)))
                if wrong:
                    path = self._manifest.path(question)
                    raise NotFiniteError(
                        f"{path}: {output} must be finite numbers, has {wrong:,} that are not; export the bundle "
                        "again, unless the question held immense numbers"
                    )

    def _session(self, question: str, cancellation: Cancellation) -> "ort.InferenceSession":
        import onnxruntime as ort  # here, since a damaged bundle can be refused without it

        name = self._manifest.graphs[question]
        path, model = self._contents.path(name), self._contents.read(name)
        external = validate_graph(path, model, self._manifest.files)
        tables = [self._table(tensor, cancellation) for tensor in external]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads  # the default counts the machine's cores, not the container's
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # what matters arrives as an exception
        # Packing would copy the item table, once per session; without it calls are as quick.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Else a file that begins as onnxruntime's own format does is read as that, which nobody has checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            values = [ort.OrtValue.ortvalue_from_numpy(table) for table in tables]
            if values:
                # The first is for what folds constants and is freed again, the second for the calls, in place.
                options.add_external_initializers([tensor.name for tensor in external], values)
            for tensor, value in zip(external, values, strict=True):
                options.add_initializer(tensor.name, value)
            with cancellation.on_cancel(lambda: options.set_load_cancellation_flag(True)):
                session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's own errors have no common base
            cancellation.check()
            raise BundleError(f"{path}: onnxruntime cannot open it: {error}; export the bundle again") from error
        has = tuple(
            {argument.name: argument.type for argument in side}
            for side in (session.get_inputs(), session.get_outputs())
        )
        for side, must, got in zip(("inputs", "outputs"), signature(self._manifest, question), has, strict=True):
            if must != got:
                raise BundleError(f"{path}: {side} must be {must}, are {got}; export the bundle again")
        self._tables += [tables, values]
        return session

    def _table(self, tensor: ExternalTensor, cancellation: Cancellation) -> npt.NDArray[Any]:
        """A tensor as it lies in its file, without a copy; looked at once for NaN, which would spread to answers."""
        kind = np.dtype(TYPES[tensor.type])
        length = math.prod(tensor.shape) * kind.itemsize
        part = self._contents.view(tensor.location)[tensor.offset : tensor.offset + length]
        table = np.require(np.frombuffer(part, kind).reshape(tensor.shape), requirements="A")
        place = (tensor.location, tensor.offset, tensor.type, length)
        if kind.kind == "f" and self._verified and place not in self._finite:
            for begin in range(0, table.size, _LOOK):
                cancellation.check()
                if has_nan(table.reshape(-1)[begin : begin + _LOOK]):
                    raise BundleError(
                        f"{self._contents.path(tensor.location)}: tables must be numbers, {tensor.name[:60]!r} has "
                        "NaN; train and export again"
                    )
            self._finite.add(place)
        return table


def has_nan(values: npt.NDArray[Any]) -> bool:
    """Whether one of some numbers is NaN, float16 or longer [n]; infinities are none."""
    if values.dtype == np.float16:
        return bool((values.view(np.uint16) & 0x7FFF).max(initial=0) > 0x7C00)
    with np.errstate(all="ignore"):
        return bool(np.isnan(values.dot(values)))


def may_be_infinite(values: npt.NDArray[np.float32]) -> bool:
    """Whether some float32 numbers, of any shape, may hold NaN or infinity: a look that is quick, and never misses."""
    if values.size > _FEW:
        flat = values.reshape(-1)
        with np.errstate(all="ignore"):
            return not math.isfinite(flat.dot(flat))  # NaN and infinity survive in the sum of squares
    highest = values.tobytes()[_HIGH_BYTE::4]  # sign and all bits of the exponent but one
    return 0x7F in highest or 0xFF in highest
