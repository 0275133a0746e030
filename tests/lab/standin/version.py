"""What the stand-in calls itself."""

VERSION = "v1.36.3+k3s1"
"""The K3s whose files and answers it imitates."""

BANNER = (
    "*** STAND-IN for K3s, for tests only. It writes K3s's files, answers its ports and runs this host's containerd; "
    "there is no Kubernetes in it. ***"
)


def version_text() -> str:
    """The output of ``k3s --version``."""
    return f"k3s version {VERSION} (stand-in)\nNOT the real K3s: {BANNER}\n"
