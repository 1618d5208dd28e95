#!/usr/bin/env bash
# Make a virtual environment with the locked packages. torch comes first and from pip itself: which
# of its builds fits (CPU, CUDA) depends on the machine, so the lock leaves it out.
set -euo pipefail
python=$1 venv=$2
torch="torch==2.13.0"

command -v "$python" >/dev/null || python=python3
"$python" - <<'CHECK'
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")
CHECK
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
    echo "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
}
pip=("$venv/bin/python" -m pip install --quiet --no-input)
"${pip[@]}" "$torch" "setuptools<82" wheel
"${pip[@]}" --no-deps --require-hashes --no-build-isolation -r requirements.lock
"${pip[@]}" --no-deps --no-build-isolation --editable .
