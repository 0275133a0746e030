"""Base of the HTTP listeners: routes and who may call them, requests, answers and blobs. It knows Flask, and no server."""

__all__ = [
    "acl",
    "auth",
    "blob_provider",
    "blobs",
    "conditions",
    "connection",
    "listener",
    "loopback",
    "peer_listener",
    "request_body",
    "responses",
    "streaming",
]
