"""VTAB's datasets through TFDS: tables, downloads, records, labels, splits."""
