"""Layers of the appliance: the order of its packages, for the test of the layout and for the page of modules."""

from __future__ import annotations

LAYERS = (
    ("actor", "files", "limits", "media", "sizes", "threads", "times", "words"),
    ("countedlog", "errors", "logs", "tls"),
    ("config", "lease", "listeners", "oci", "pki"),
    ("release", "trust"),
    ("archives", "store"),
    ("backup", "k3s", "publish", "web"),
    ("peers", "registry"),
    ("agent",),
    ("server",),
    ("cli",),
    ("__main__",),
)
"""Packages and modules, the lowest first. Each imports lower ones only, and none beside itself."""
