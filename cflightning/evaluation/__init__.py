"""Evaluation of ratings and rankings beside baselines, with confidence intervals and plots."""
