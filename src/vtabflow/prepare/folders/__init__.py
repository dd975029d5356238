"""Images of one's own: folders and zips of <class>/<image>."""
