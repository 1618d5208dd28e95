#!/usr/bin/env bash
# The whole pipeline on a real corpus, or on a generated one where there is no apt-get.
set -euo pipefail
corpus="$MM_ROOT/corpora/stamps"
export MM_CORPUS=${MM_CORPUS:-$corpus}
export PREFECT_HOME=${PREFECT_HOME:-$(realpath -m "$MM_ROOT")/prefect}

if [ ! -d "$MM_CORPUS" ]; then
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        "$BIN/mm" corpus fetch stamps "$MM_CORPUS"
    else
        echo "no apt-get here: using a generated corpus instead of the stamps"
        RECIPE=configs/recipes/generated_tiny_cpu.yaml
        export MM_CORPUS="$MM_ROOT/corpora/generated"
        [ -d "$MM_CORPUS" ] || "$BIN/mm" corpus make "$MM_CORPUS" --samples 800 --seed 0
    fi
fi
code=0
"$BIN/python" -m pipelines "$RECIPE" || code=$?
[ "$code" = 4 ] || exit "$code"
