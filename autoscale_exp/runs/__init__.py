"""Designs of probes, the records of finished runs, and the watch over a sweep."""
