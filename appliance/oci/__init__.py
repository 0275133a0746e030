"""Names, digests, media types, manifests, platforms and piece maps: pure functions, no I/O."""
