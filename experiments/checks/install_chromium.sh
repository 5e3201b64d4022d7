#!/bin/sh
# Install Chromium from Debian's packages, so that the tests in a real browser run:
#     sh experiments/checks/install_chromium.sh
# It does nothing where it is there, where it is not root or there is no apt, and never fails:
# without Chromium those tests are skipped, and say why.
for program in chromium chromium-browser google-chrome; do
    if command -v "$program" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install_chromium: not root, or no apt-get: tests in a browser are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
install() { timeout 600 apt-get install -y -q --no-install-recommends chromium; }
{ install || { timeout 120 apt-get update -q && install; }; } >/dev/null 2>&1 ||
    echo "install_chromium: chromium cannot be installed: tests in a browser are skipped" >&2
exit 0
