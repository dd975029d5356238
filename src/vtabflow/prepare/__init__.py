"""Download or draw a dataset and write it as a store."""
