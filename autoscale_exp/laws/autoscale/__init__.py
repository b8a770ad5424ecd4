"""AutoScale as published (arXiv 2407.20177): stage 1, DDO at each scale; stage 2, a path through its optima."""
