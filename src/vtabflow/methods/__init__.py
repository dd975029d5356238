"""The ways to learn a representation: one file for each method or close pair."""
