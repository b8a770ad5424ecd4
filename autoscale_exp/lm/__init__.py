"""Lightning modules around transformers' language models."""
