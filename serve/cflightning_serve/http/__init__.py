"""The HTTP server, extra ``http``: ``python -m cflightning_serve http BUNDLE``.

This module imports nothing, so that the command line's ``--help`` needs no extra.
"""
