"""Designs of proxy runs, and the records and tables of finished runs."""
