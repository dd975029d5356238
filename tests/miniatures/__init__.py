"""Miniatures of VTAB's datasets: drawn pictures in the official archives' layout, for TFDS' own builders to prepare."""
