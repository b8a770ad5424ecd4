"""Studies: a search, its fits, rivals, target runs and their report, as one list of commands."""
