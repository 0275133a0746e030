"""Blobs, layout and generations: the only code that writes under the store's directory."""
