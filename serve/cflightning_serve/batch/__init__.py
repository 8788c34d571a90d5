"""Recommendations for all users, written to files."""
