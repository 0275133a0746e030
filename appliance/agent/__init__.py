"""The one process of a node that fetches: it follows the publisher, brings blobs from peers, and watches the store."""

__all__ = ["client", "daemon"]
