"""The accuracy gate: a baseline with its evidence, and the check of a later run against it."""
