#!/bin/sh
# serve_openai.sh PROGRAM SOURCE BUILD - the server through the official Python client, which is
# installed once into a virtual environment in the build folder; skipped where that cannot be.
set -u
here=$(dirname -- "$0")
python=$3/openai/bin/python
skip() {
    echo "$1"
    exit 77
}
if ! "$python" -c 'import openai' 2>/dev/null; then
    rm -rf "$3/openai"
    python3 -m venv "$3/openai" || skip "python3 has no venv"
    timeout 300 "$python" -m pip install -q --retries 1 --timeout 15 openai >"$3/openai.log" 2>&1 ||
        skip "the openai client cannot be installed: $(tail -1 "$3/openai.log")"
fi
exec "$python" "$here/serve_openai.py" "$1" "$2"
