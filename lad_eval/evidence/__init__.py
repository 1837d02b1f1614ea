"""Evidence, the result of forward passes: the table in memory, its files, a run's store, and generated replies."""
