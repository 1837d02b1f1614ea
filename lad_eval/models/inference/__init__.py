"""Forward passes: batching, the log-probabilities of candidates, the continuation of prompts, and generation."""
