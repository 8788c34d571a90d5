"""LightningModules: network + objective + metrics + optimiser."""
