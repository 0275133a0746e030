"""OCI Distribution 1.1 over the store: the read side and the write side."""

__all__ = ["push", "read", "repeats", "response_cache", "selfcheck"]
