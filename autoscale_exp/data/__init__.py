"""The token store, and how training reads it. data/preparation makes stores."""
