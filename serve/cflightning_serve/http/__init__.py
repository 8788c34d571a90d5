"""The HTTP server, extra ``http``: ``python -m cflightning_serve http BUNDLE``.

JSON routes with an OpenAPI description, the Open Inference Protocol v2 beside them, Prometheus metrics, and reloads
without a pause. This module imports nothing, so that the command line's ``--help`` needs no extra.
"""
