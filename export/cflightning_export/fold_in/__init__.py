"""Fold-in of users and items: prior, specification and refits."""
