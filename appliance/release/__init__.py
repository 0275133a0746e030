"""Builder of what is carried to a site: the wheelhouse."""

__all__ = ["wheelhouse"]
