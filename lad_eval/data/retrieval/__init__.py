"""Captioned data sets for retrieval tasks: embeddings, hard negatives, and samples drawn from both and stored."""
