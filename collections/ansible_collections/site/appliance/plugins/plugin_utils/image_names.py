# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Image names as Kubernetes and containerd understand them. Pure functions."""

from __future__ import annotations


def full_name(name: str) -> str:
    """Return a name with its registry and, where it has no digest, its tag: ``nginx`` is ``docker.io/library/nginx:latest``."""
    base, at, digest = name.strip().partition("@")
    first, slash, rest = base.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        base = f"docker.io/{base}" if slash else f"docker.io/library/{base}"
    elif first in ("index.docker.io", "registry-1.docker.io"):
        base = f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    if ":" not in base.rpartition("/")[2] and not at:
        base += ":latest"
    return base + at + digest


def repository_of(name: str) -> str:
    """Return a full name without tag and digest."""
    base = name.partition("@")[0]
    head, colon, tag = base.rpartition(":")
    return head if colon and "/" not in tag else base
