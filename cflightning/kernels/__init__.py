"""Compiled training steps, each with a plain-torch twin that tests hold it to. They need numba (extra `fast`)."""
