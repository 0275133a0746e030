#!/bin/bash
# The servers that the bench compares with, and its client, from Debian; as root. Their packages would start them as
# services: they are kept from it, and stay off.
set -euo pipefail

packages=(docker-registry nginx-light wrk)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
  printf 'not root: these packages are missing, and the bench needs them: %s\n' "${missing[*]}" >&2
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
    case $package in
    docker-registry) systemctl disable --now -q docker-registry.service ;;
    nginx-light) systemctl disable --now -q nginx.service ;;
    esac
  done
fi
