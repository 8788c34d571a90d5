"""The limits that ``serve/BUNDLE.md`` sets to the graphs of a bundle, held before onnxruntime sees a byte of them."""

import math
from collections.abc import Mapping
from pathlib import Path

from cflightning_serve.bundle.files import AGAIN, FileEntry
from cflightning_serve.bundle.onnx_reader import ExternalTensor, read_outline
from cflightning_serve.errors import BundleError

IR_VERSION = 10
OPERATOR_SETS = {"": 18, "ai.onnx.ml": 4}
_OPERATORS = """
Abs Add And ArgMax ArgMin Cast CastLike Ceil Clip Compress Concat Constant ConstantOfShape CumSum DequantizeLinear Div
Einsum Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual Identity If IsInf
IsNaN Less LessOrEqual Log Loop MatMul MatMulInteger Max Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow Range
Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round
ScatterElements ScatterND Shape Sigmoid Sign Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK
Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(_OPERATORS.split()),
    "ai.onnx.ml": frozenset({"LabelEncoder"}),
}
"""Domain -> operators that a graph may use; "" is ai.onnx."""
TYPES = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}
"""Element types of external data, as ONNX numbers them -> as numpy names them."""
_SHOWN = 3
_OWN_OPTIONS = "ort_config"
"""A model's own options for onnxruntime, which obeys them where an environment variable tells it to."""


def validate_graph(path: Path, data: bytes, files: Mapping[str, FileEntry]) -> tuple[ExternalTensor, ...]:
    """Hold a graph against the limits.

    Args:
        path: where it lay, for messages.
        data: its bytes.
        files: of the manifest: the only ones that it may name.

    Returns:
        Its tensors whose bytes lie in other files of the bundle.

    Raises:
        BundleError: the bytes are no ONNX model, or one beyond the limits.
    """

    def check(holds: bool, must: str) -> None:
        if not holds:
            raise BundleError(f"{path}: {must}; {AGAIN}")

    try:
        outline = read_outline(data)
    except ValueError as error:
        raise BundleError(f"{path}: must be an ONNX model as BUNDLE.md limits it, {error}; {AGAIN}") from error
    check(0 < outline.ir_version <= IR_VERSION, f"must have an IR version up to {IR_VERSION}, has {outline.ir_version}")
    for domain, version in outline.operator_sets.items():
        must = OPERATOR_SETS.get(domain)
        allowed = ", ".join(f"{name or 'ai.onnx'} {number}" for name, number in OPERATOR_SETS.items())
        check(version == must, f"must use the operator sets {allowed}, names {domain[:60] or 'ai.onnx'!r} {version}")
    strange = sorted(f"{domain}:{name}"[:60] for domain, name in outline.operators if name not in _of(domain))
    check(not strange, f"must use operators of BUNDLE.md alone, uses {len(strange)} others: {_some(strange)}")
    check(_OWN_OPTIONS not in outline.metadata, f"must not bring options for onnxruntime ({_OWN_OPTIONS})")
    for tensor in outline.external:
        what = f"tensor {tensor.name[:60]!r}"
        entry = files.get(tensor.location)
        check(entry is not None, f"{what} must lie in a file that the manifest names, lies in {tensor.location[:60]!r}")
        assert entry is not None
        check(tensor.type in TYPES, f"{what} must be of numbers or bool, is of ONNX type {tensor.type}")
        # Whoever wrote 2**60 for a length meant no good: Python's integers keep the sum right.
        length = math.prod(tensor.shape) * int(TYPES[tensor.type][-1].replace("?", "1"))
        fits = tensor.length in (None, length) and tensor.offset + length <= entry.bytes
        check(fits, f"{what} of shape {list(tensor.shape)[:8]} does not fit its place in {tensor.location}")
    return outline.external


def _of(domain: str) -> frozenset[str]:
    return OPERATORS.get(domain, frozenset())


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
