"""Backups: what of a site cannot be made again, kept in one file, and brought back."""
