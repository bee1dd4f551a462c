#!/bin/sh
# serve_page.sh PROGRAM SOURCE BUILD - the server's page in headless Chromium. Needs Debian's
# chromium and chromium-driver; the driver's Python side is installed once into a virtual
# environment in the build folder. Skipped where either cannot be had.
set -u
here=$(dirname -- "$0")
python=$3/selenium/bin/python
skip() {
    echo "$1"
    exit 77
}
command -v chromium >/dev/null && command -v chromedriver >/dev/null ||
    skip "chromium and chromium-driver are not installed"
if ! "$python" -c 'import axe_selenium_python' 2>/dev/null; then
    rm -rf "$3/selenium"
    python3 -m venv "$3/selenium" || skip "python3 has no venv"
    timeout 300 "$python" -m pip install -q --retries 1 --timeout 15 selenium axe-selenium-python \
        >"$3/selenium.log" 2>&1 || skip "selenium cannot be installed: $(tail -1 "$3/selenium.log")"
fi
exec "$python" "$here/serve_page.py" "$1" "$2"
