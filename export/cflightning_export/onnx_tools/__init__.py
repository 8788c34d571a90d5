"""Tools for ONNX: graph builder, torch export, external data, quantisation, sessions."""
