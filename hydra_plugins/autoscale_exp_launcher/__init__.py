"""Hydra's launcher of one process per run. Hydra finds launchers in the package hydra_plugins alone."""
