"""ImageNet as the upstream set, kept as JPEG files in a packed store."""
