"""Find the data mixture for the scale you will train at.

Every job is a module: `python -m autoscale_exp.<job>`, with `prepare`, `train`, `fit` and `report`.
"""
