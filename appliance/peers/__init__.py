"""Transport between nodes: requests to peers, and the routes that answer them."""

__all__ = ["https", "routes", "transport", "wire"]
