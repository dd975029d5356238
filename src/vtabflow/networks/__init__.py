"""The trunks that turn an image into a representation."""
