"""Domain weights that follow the training itself: DoReMi, DoGE and ADO."""
