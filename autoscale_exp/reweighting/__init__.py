"""Domain weights that follow the losses of the training itself: DoReMi, DoGE and ADO."""
