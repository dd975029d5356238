"""The ways to obtain a representation: one file for each method or close pair."""
