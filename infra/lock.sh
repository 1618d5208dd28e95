#!/usr/bin/env bash
# Resolve requirements.lock from pyproject.toml: every package but torch and triton, with hashes.
set -euo pipefail
python=$1
command -v "$python" >/dev/null || python=python3
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet uv
printf "%s ; sys_platform == 'never'\n" torch triton >"$tools/left-out.txt"
"$tools/venv/bin/uv" pip compile --quiet pyproject.toml --all-extras --override "$tools/left-out.txt" \
    --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
    --custom-compile-command "make lock" --output-file requirements.lock
