"""The best mixture under a law: constraints and the search that meets them exactly."""
