"""Evaluation of trained models: perplexity per domain, GLUE and SQuAD after fine-tuning, lm-evaluation-harness."""
