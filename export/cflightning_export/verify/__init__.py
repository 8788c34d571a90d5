"""Verification of a bundle against torch and exact numpy solutions."""
