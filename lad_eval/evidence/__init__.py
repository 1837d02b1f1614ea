"""What a model showed in a forward pass: a table in memory, its files, the store of a run, and generated replies."""
