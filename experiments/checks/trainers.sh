#!/bin/sh
# Make .trainers, an environment beside .venv for trainers that do not fit the lock.
# Usage: sh experiments/checks/trainers.sh path/to/uv [TORCHTITAN]
# Its own packages are those below (25 MB); torch and all else are those of .venv, which is not
# changed. TORCHTITAN is a checkout of torchtitan's main branch, which no registry has: its package is
# copied, and tests run it besides the release.
set -eu
uv=$1
checkout=${2:-}
folder=.trainers
wanted="torchtitan==0.3.0 docstring-parser==0.18.0 spmd-types==0.2.3 torch-checkpointing==0.1.1
typeguard==4.6.1 tyro==1.0.17 megatron-core==0.16.1
grain==0.2.18 array-record==0.8.6 etils==1.15.0 portpicker==1.6.0 zipp==4.1.2"

if test "$(cat "$folder/.done" 2>/dev/null)" != "$wanted"; then
    "$uv" venv --quiet --clear --python .venv/bin/python "$folder"
    # shellcheck disable=SC2086
    "$uv" pip install --quiet --python "$folder/bin/python" --no-deps $wanted
    beside=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    own=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    echo "import site; site.addsitedir('$beside')" >"$own/beside.pth"
    "$folder/bin/python" -c 'import torch, pytest, mixopt'
    echo "$wanted" >"$folder/.done"
    echo "$wanted"
fi
if test -n "$checkout"; then
    rm -rf "$folder/torchtitan-main"
    mkdir "$folder/torchtitan-main"
    cp -R "$checkout/torchtitan" "$folder/torchtitan-main/torchtitan"
    echo "torchtitan of $checkout"
fi
