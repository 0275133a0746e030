"""Images that this host's containerd runs."""

__all__ = ["containerd"]
