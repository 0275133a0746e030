"""Backups of a site: its names, its keys and what operators pushed, in one file."""

__all__ = ["container", "contents", "site"]
