"""Domain weights to exact rows, and the order in which a run sees them."""
