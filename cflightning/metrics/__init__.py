"""Metrics of ratings and rankings; the result is the same on any number of devices."""
