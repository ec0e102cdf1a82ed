#!/bin/sh
# Makes a Debian machine ready for `make e2e-docker`: Docker from Debian, its engine started, and a base image built
# on this machine, since a registry may be out of reach. The base trusts the certificates that this machine trusts.
#
#   sudo tools/docker_here.sh        # prints the name of the base image
#   tools/docker_here.sh --check     # prints it if all is there, and changes nothing
set -eu
BASE=visavis-local-base:1
RELEASE=bookworm
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
DOCKER=/usr/bin/docker # Debian's own, which has BuildKit built in

ready() { "$DOCKER" info >/dev/null 2>&1 && "$DOCKER" image inspect "$BASE" >/dev/null 2>&1; }

if [ "${1:-}" = --check ]; then
  ready && echo "$BASE" && exit
  printf 'error: Docker does not answer, or has no base image\n' >&2
  printf '  fix: sudo tools/docker_here.sh (Debian), or start Docker and pass BASE_IMAGE=python:3.11-slim-bookworm\n' >&2
  exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
  printf 'error: this installs packages and starts a service\n  fix: sudo %s\n' "$0" >&2
  exit 2
fi
if ! command -v dockerd >/dev/null || ! command -v mmdebstrap >/dev/null; then
  apt-get install --yes --no-install-recommends ca-certificates docker.io mmdebstrap >&2
fi
if ! "$DOCKER" info >/dev/null 2>&1; then
  nohup dockerd >/var/log/dockerd.log 2>&1 &
  for _ in $(seq 60); do
    "$DOCKER" info >/dev/null 2>&1 && break
    sleep 0.5
  done
  "$DOCKER" info >/dev/null || { printf 'error: the Docker engine did not start\n  fix: read /var/log/dockerd.log\n' >&2; exit 1; }
fi
if ! "$DOCKER" image inspect "$BASE" >/dev/null 2>&1; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-pip \
    --customize-hook="copy-in $CERTIFICATES /etc/ssl/certs" "$RELEASE" "$work/base.tar" >&2
  "$DOCKER" import --change "ENV PIP_CERT=$CERTIFICATES SSL_CERT_FILE=$CERTIFICATES" "$work/base.tar" "$BASE" >&2
fi
echo "$BASE"
