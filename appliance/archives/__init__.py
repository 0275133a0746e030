"""Readers of image archives, and the search for them on a medium."""

__all__ = [
    "checksum_reader",
    "discovery",
    "docker",
    "fingerprint",
    "identity",
    "label",
    "left_out",
    "limits",
    "medium",
    "model",
    "reader",
    "sandbox",
    "sink",
    "tar",
]
