"""Domain weights that follow the losses of the training itself: DoReMi and ADO."""
