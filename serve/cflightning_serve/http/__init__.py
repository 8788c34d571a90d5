"""The HTTP server (extra ``http``): ``python -m cflightning_serve http BUNDLE``.

JSON routes with an OpenAPI description, the Open Inference Protocol v2, Prometheus metrics, reloads without downtime.
This module imports nothing, so ``--help`` of the command line works without the extra.
"""
