"""Loss as a function of domain tokens; optima; extrapolation to any token budget. numpy and scipy only."""
