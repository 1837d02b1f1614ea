"""Figures for people and machines: `rows` into `tables`, `comparisons`, a `figure`, and the `listing` of names."""
