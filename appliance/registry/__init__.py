"""The read side of OCI Distribution 1.1 over the store."""
