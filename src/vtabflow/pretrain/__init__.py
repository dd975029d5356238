"""Train an encoder: one loop for all methods."""
