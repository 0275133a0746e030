#!/bin/bash
# What development and the tests need on a Debian 12 machine: packages (as root), and a virtual environment with
# exactly the versions of the lock file. Safe to run again; does nothing where everything is there.
set -euo pipefail
venv=$1

packages=(
  python3-venv git ca-certificates openssh-client shellcheck zstd
  mmdebstrap systemd-container iproute2 nftables tcpdump e2fsprogs exfatprogs exfat-fuse
  skopeo umoci podman buildah containerd runc busybox-static openssl gcc libc6-dev strace
)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${missing[@]}"
  else
    printf 'not root: these packages are missing, and tests that need them will fail: %s\n' "${missing[*]}" >&2
  fi
fi

# What our registry's answers are compared with, and the writer of docker-archives.
tests/quiet-install.sh docker-registry docker.io || [ "$(id -u)" != 0 ]

python=/usr/bin/python3
[ -x "$python" ] || python=python3
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
# (The editable installation warns of itself.)
PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
