"""What every part shares: arrays, hashes, whole files, errors, the entry point of a job. Imports no other part."""
