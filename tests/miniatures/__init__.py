"""Miniatures of VTAB's datasets: drawn images in the official archives' layout, for TFDS' own builders to prepare."""
