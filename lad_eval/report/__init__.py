"""Reports of finished runs: tables, comparisons, the leaderboard, figures, model cards, and the HTML page."""
