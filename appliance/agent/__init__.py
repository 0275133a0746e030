"""The one process of a node that fetches: it follows the publisher and brings blobs from peers."""
