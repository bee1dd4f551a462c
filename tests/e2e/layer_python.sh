#!/bin/sh
# layer_python.sh LIBRARY SOURCE - docs/layer.py on the shared library; skips without numpy.
set -eu
python=${PYTHON:-python3}
if ! "$python" -c 'import numpy' 2>/dev/null; then
    echo "skipped: $python has no numpy"
    exit 77
fi
"$python" "$2/docs/layer.py" "$1"
