"""Adapt an encoder to a task: the sweep, the selection, one test."""
