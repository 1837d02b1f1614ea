"""Evidence, which is what a forward pass yields: the table in memory, its files, a run's store, and generated replies."""
