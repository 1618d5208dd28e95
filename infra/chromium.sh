#!/usr/bin/env bash
# Installs Debian's Chromium for the browser tests, where it is missing and we are root. Elsewhere
# those tests use the browser that MM_CHROMIUM names, or are skipped and say why.
set -euo pipefail

if command -v chromium > /dev/null || [[ -n "${MM_CHROMIUM:-}" ]]; then
  exit 0
fi
if [[ "$(id -u)" != 0 ]] || ! command -v apt-get > /dev/null; then
  echo "chromium.sh: no Chromium, and no root to install it: browser tests will be skipped" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null
