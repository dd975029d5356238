"""A study and its jobs: settings, methods, tasks, code identity, keys. Imports nothing heavy (no torch, no pandas)."""
