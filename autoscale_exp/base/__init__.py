"""The ground of all parts: arrays, hashes, whole files, errors, the entry point of a job. Imports no other part."""
