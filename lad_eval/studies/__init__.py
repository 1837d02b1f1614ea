"""One folder for each paper: its tables and figures, for any supported model."""
