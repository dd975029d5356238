"""Procedural stand-ins for VTAB's tasks: drawn from a seed, one file for each kind of image."""
