#!/bin/bash
# Debian packages of servers that tests start themselves, as root: their packages would start them as services. They
# are kept from it, and stay off. Does nothing where everything is there.
set -euo pipefail

declare -A services=([docker-registry]=docker-registry.service [nginx-light]=nginx.service [docker.io]="docker.socket docker.service")
missing=()
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
  printf 'not root: these packages are missing, and what needs them will fail: %s\n' "${missing[*]}" >&2
  exit 1
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  # What invoke-rc.d(8) asks before it starts a service: 101 is "no".
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
if [ -d /run/systemd/system ]; then
  for package in "${missing[@]}"; do
    if [ -n "${services[$package]:-}" ]; then
      read -ra units <<<"${services[$package]}"
      systemctl disable --now -q "${units[@]}"
    fi
  done
fi
