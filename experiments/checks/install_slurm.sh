#!/bin/sh
# Install Slurm and munge from Debian's packages, so that the tests on a real Slurm run:
#     sh experiments/checks/install_slurm.sh
# It does nothing where they are there, where it is not root or there is no apt, and never fails:
# without Slurm those tests are skipped, and say why.
for program in slurmctld slurmd munged; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing=1
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install_slurm: not root, or no apt-get: tests on Slurm are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
install() { timeout 300 apt-get install -y -q --no-install-recommends slurm-wlm munge; }
{ install || { timeout 120 apt-get update -q && install; }; } >/dev/null 2>&1 ||
    echo "install_slurm: slurm-wlm cannot be installed: tests on Slurm are skipped" >&2
exit 0
