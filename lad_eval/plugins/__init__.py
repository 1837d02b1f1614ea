"""The same tasks and methods inside other harnesses."""
