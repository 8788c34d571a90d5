"""One file for the tables of all graphs: equal bytes once, long ones at pages."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cflightning_export.onnx_tools.external_data import CACHE_LINE, MIN_EXTERNAL, MIN_PAGED, PAGE, SharedWeights


def model(**tables):
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in tables]
    outputs = [
        helper.make_tensor_value_info(f"{name}_out", helper.np_dtype_to_tensor_dtype(table.dtype), table.shape)
        for name, table in tables.items()
    ]
    graph = helper.make_graph(nodes, "g", [], outputs, [numpy_helper.from_array(t, n) for n, t in tables.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_tables_lie_in_the_file_once_and_come_back(tmp_path):
    rng = np.random.default_rng(0)
    long, longer = rng.random(MIN_PAGED // 4, np.float32), rng.integers(-9, 9, (MIN_PAGED, 3), np.int8)
    short, codes = rng.random((3, 100), np.float32), rng.integers(0, 9, MIN_EXTERNAL + 7, np.uint8)
    tables = {
        "one": {"long": long, "short": short, "few": np.arange(MIN_EXTERNAL // 8 - 1)},
        "two": {"same": long.reshape(-1, 8), "longer": longer, "codes": codes, "also_short": short.T.copy()},
        "three": {"codes_again": codes, "as_integers": long.view(np.int32)},
    }
    models = {f"{name}.onnx": model(**some) for name, some in tables.items()}
    with SharedWeights(tmp_path / "weights.bin") as weights:
        for graph in models.values():
            weights.add(graph)
    places = {}
    for name, found in models.items():
        (tmp_path / name).write_bytes(found.SerializeToString())
        for tensor in found.graph.initializer:
            places[tensor.name] = {entry.key: entry.value for entry in tensor.external_data}
            if tensor.data_location == TensorProto.EXTERNAL:
                step = PAGE if int(places[tensor.name]["length"]) >= MIN_PAGED else CACHE_LINE
                assert int(places[tensor.name]["offset"]) % step == 0
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(tmp_path / name, options, providers=["CPUExecutionProvider"])
        for got, table in zip(session.run(None, {}), tables[name.removesuffix(".onnx")].values(), strict=True):
            np.testing.assert_array_equal(got, table)
        onnx.checker.check_model(str(tmp_path / name))
    assert places["few"] == {}
    assert places["long"] == places["same"] == places["as_integers"]
    assert places["codes"] == places["codes_again"]
    assert places["short"] != places["also_short"]
    used = long.nbytes + longer.nbytes + 2 * short.nbytes + codes.nbytes
    assert used <= (tmp_path / "weights.bin").stat().st_size < used + PAGE + 3 * CACHE_LINE
