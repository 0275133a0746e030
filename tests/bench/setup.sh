#!/bin/bash
# The servers that the bench compares with, and its client, from Debian; as root.
set -euo pipefail
exec "$(dirname "$0")/../quiet-install.sh" docker-registry nginx-light wrk skopeo zstd openssl
