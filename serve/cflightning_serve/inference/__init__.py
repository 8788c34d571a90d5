"""Inference: from validated inputs to recommendations, fold-in and explanations."""
