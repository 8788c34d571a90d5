"""Evaluation of ratings and rankings, with baselines, confidence intervals and plots."""
