"""What trained models are worth: perplexity per domain, GLUE and SQuAD after fine-tuning, lm-evaluation-harness."""
