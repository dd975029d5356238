"""Download or draw a dataset and lay it down as a store."""
