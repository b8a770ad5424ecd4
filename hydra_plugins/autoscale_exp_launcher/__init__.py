"""Hydra's launcher of one process per GPU. Hydra finds launchers in the package hydra_plugins alone."""
