"""The token store, and what training reads of it; data/preparation makes it."""
