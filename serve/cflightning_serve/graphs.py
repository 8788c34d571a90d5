"""The graphs of a bundle as onnxruntime sessions, each opened when it is first asked."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from cflightning_serve.errors import BundleError, InputError, UnsupportedError
from cflightning_serve.manifest import Manifest
from cflightning_serve.signatures import SIGNATURES, signature

if TYPE_CHECKING:
    import onnxruntime as ort

_OPTIONS = {"seen": "the run's table at hand", "history": "--with-history", "fold_in_item": "--new-items"}
"""Questions that are answered where the export was told so."""


class Graphs:
    """The sessions of one bundle; safe to share between threads.

    Args:
        manifest: the bundle's manifest, its files checked.
        threads: threads of onnxruntime inside one call.
    """

    def __init__(self, manifest: Manifest, threads: int) -> None:
        self._manifest = manifest
        self._threads = threads
        self._lock = threading.Lock()
        self._sessions: dict[str, ort.InferenceSession] = {}

    def run(self, question: str, outputs: Sequence[str], feeds: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Ask the graph that answers ``question`` for the named outputs.

        Raises:
            BundleError: the graph cannot be opened or fails.
            UnsupportedError: the bundle has no such graph.
            InputError: a string id is no valid Unicode.
        """
        session = self._sessions.get(question) or self.open(question)
        try:
            answer: list[npt.NDArray[Any]] = session.run(outputs, feeds)
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON can smuggle in
            raise InputError(f"ids: must be valid Unicode, got {error.object!r}") from error
        except Exception as error:  # onnxruntime's own errors have no common base
            path = self._manifest.path(question)
            raise BundleError(f"{path}: the graph failed: {error}; export the bundle again") from error
        return answer

    def open(self, question: str) -> "ort.InferenceSession":
        """Open a graph unless it is open.

        Raises:
            BundleError: it cannot be opened, or another bundle has taken the folder since this one was loaded.
            UnsupportedError: the bundle has no such graph.
        """
        if question not in self._manifest.graphs:
            raise UnsupportedError(
                f"{self._manifest.folder}: has no graph that answers {question!r}; export the bundle again with "
                f"{_OPTIONS.get(question, 'it')}"
            )
        with self._lock:
            if question not in self._sessions:
                if self._sessions and Manifest.read(self._manifest.folder).sha256 != self._manifest.sha256:
                    raise BundleError(
                        f"{self._manifest.folder}: now holds another bundle than was loaded; load it again"
                    )
                self._sessions[question] = _session(self._manifest, question, self._threads)
            return self._sessions[question]

    def open_all(self) -> None:
        """Open every graph that this reader knows, all from one bundle, so that its folder may be replaced later.

        Raises:
            BundleError: one cannot be opened, or another bundle took the folder in the meantime.
        """
        for question in filter(SIGNATURES.__contains__, self._manifest.graphs):
            self.open(question)
        if Manifest.read(self._manifest.folder).sha256 != self._manifest.sha256:
            raise BundleError(f"{self._manifest.folder}: was replaced while it was loaded; load it again")


def _session(manifest: Manifest, question: str, threads: int) -> "ort.InferenceSession":
    import onnxruntime as ort  # here, since a damaged bundle can be refused without it

    path = manifest.path(question)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # the default counts the machine's cores, not the container's
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # what matters arrives as an exception
    # Packing would copy the item table out of the memory-mapped file, once per session; without it calls are as quick.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common base
        raise BundleError(f"{path}: onnxruntime cannot open it: {error}; export the bundle again") from error
    has = tuple(
        {argument.name: argument.type for argument in side} for side in (session.get_inputs(), session.get_outputs())
    )
    for side, must, got in zip(("inputs", "outputs"), signature(manifest, question), has, strict=True):
        if must != got:
            raise BundleError(f"{path}: {side} must be {must}, are {got}; export the bundle again")
    return session
