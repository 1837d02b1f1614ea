"""A model's inputs: image preparation, padding, processors, and the caches of images, pixels and features."""
