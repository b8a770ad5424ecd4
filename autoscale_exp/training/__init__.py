"""One training run: planned and checked, trained, recorded; and the watch over a sweep of them."""
