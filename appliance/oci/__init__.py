"""References, digests, media types, manifests, platforms and piece maps: pure functions, no I/O."""

__all__ = ["blob", "digests", "manifests", "mediatypes", "pieces", "platforms", "reference", "strictjson"]
