"""Bundles of images for retrieval tasks: rendered from a data set's captions, with hard negatives by embedding, and stored."""
