"""Figures for people and machines: `rows` into `tables`, `comparisons`, and a `figure`."""
