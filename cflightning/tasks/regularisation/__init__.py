"""Regularisation of rating models: initial penalties, the adaptive penalty, and blending with the biases at the end."""
