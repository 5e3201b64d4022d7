#!/bin/sh
# Install the libraries that write token files, so that tests read what they wrote.
# Usage: sh experiments/checks/token_tools.sh path/to/uv [TOOL ...]
# Each goes to .tools/token_tools/TOOL with no more than it imports; torch, numpy and transformers are
# those of .venv, which is not changed. mosaicml-streaming and litdata cannot be installed into it:
# they would put numpy, transformers and python-dateutil back to older versions.
set -eu
uv=$1
shift
python=$(pwd)/.venv/bin/python
folder=.tools/token_tools

put() {
    tool=$1
    shift
    test -e "$folder/$tool/.done" && return
    rm -rf "${folder:?}/$tool"
    "$uv" pip install --quiet --python "$python" --no-deps --target "$folder/$tool" "$@"
    touch "$folder/$tool/.done"
    echo "$tool: $1"
}

install() {
    case $1 in
    megatron) put megatron megatron-core==0.16.1 ;;
    datatrove) put datatrove datatrove==0.10.1 loguru==0.7.3 humanize==4.17.0 ;;
    webdataset) put webdataset webdataset==1.0.2 braceexpand==0.1.7 ;;
    litdata)
        put litdata litdata==0.2.76 obstore==0.12.1 tifffile==2026.3.3 torchvision==0.29.2 \
            boto3==1.44.8 botocore==1.44.8 jmespath==1.1.0 s3transfer==0.19.3
        ;;
    mds)
        put mds mosaicml-streaming==0.13.0 brotli==1.2.1 python-snappy==0.7.3 cramjam==2.14.0 zstd==1.5.7.2 \
            catalogue==2.0.10 torchvision==0.29.2
        ;;
    *)
        echo "token_tools.sh: unknown tool $1" >&2
        exit 2
        ;;
    esac
}

mkdir -p "$folder"
if test $# = 0; then
    set -- megatron datatrove webdataset litdata mds
fi
for tool in "$@"; do
    install "$tool"
done
