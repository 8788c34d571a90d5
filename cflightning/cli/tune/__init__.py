"""Choosing settings: the command `tune`, which searches the ranges of a config by the error on a validation slice."""
