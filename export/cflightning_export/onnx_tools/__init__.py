"""Tools for ONNX: graph builder, ids, torch's exporter, external data, quantisation, sessions."""
