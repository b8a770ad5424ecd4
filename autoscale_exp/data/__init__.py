"""From text to a token store, and from a token store to batches."""
