#!/bin/sh
# Install what trainers read their configurations with, so that tests can read ours with it:
# `pytest -m nightly tests/integrations/test_export_parsers.py`.
# Usage: sh experiments/checks/parsers.sh path/to/uv [TOOL ...]
# A parser goes to .tools/parsers/TOOL with no more than it imports; torch, transformers and datasets
# are those of .venv, which is not changed (145 MB in all). Levanter needs an environment of
# its own with JAX (1.5 GB), so that it is installed only where it is named.
set -eu
uv=$1
shift
python=$(pwd)/.venv/bin/python
folder=.tools/parsers

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
    megatron-bridge)
        put megatron-bridge megatron-bridge==0.3.1 megatron-core==0.16.1 omegaconf==2.3.0 \
            antlr4-python3-runtime==4.9.3 hydra-core==1.3.2
        ;;
    nemo) put nemo nemo-automodel==0.7.0 ;;
    olmo-core)
        put olmo-core ai2-olmo-core==3.0.0 bettermap==1.3.1 boto3==1.44.8 botocore==1.44.8 \
            cached-path==1.8.10 dataclass-extensions==0.5.0 google-api-core==2.44.0 \
            google-auth==2.63.0 google-cloud-core==2.8.0 google-cloud-storage==3.17.1 \
            google-crc32c==1.9.0 google-resumable-media==2.11.0 googleapis-common-protos==1.76.0 \
            jmespath==1.1.0 proto-plus==1.29.0 s3transfer==0.19.3
        ;;
    torchtitan)
        put torchtitan torchtitan==0.3.0 docstring-parser==0.18.0 spmd-types==0.2.3 \
            torch-checkpointing==0.1.1 typeguard==4.6.1 tyro==1.0.17
        ;;
    axolotl) put axolotl axolotl==0.19.0 ;;
    llamafactory)
        put llamafactory llamafactory==0.9.5 antlr4-python3-runtime==4.9.3 omegaconf==2.3.0 \
            peft==0.21.2 trl==0.24.0
        ;;
    swift)
        put swift ms-swift==4.6.0 json-repair==0.64.6 modelscope==1.40.2 modelscope-hub==0.5.1 \
            peft==0.21.2
        ;;
    levanter)
        test -e "$folder/levanter/.done" && return
        "$uv" venv --quiet --clear --python "$python" "$folder/levanter"
        "$uv" pip install --quiet --prerelease=allow --python "$folder/levanter" \
            marin-levanter==0.2.20.dev202606180959 gitpython
        touch "$folder/levanter/.done"
        echo "levanter: marin-levanter==0.2.20.dev202606180959"
        ;;
    *)
        echo "parsers.sh: unknown tool $1" >&2
        exit 2
        ;;
    esac
}

mkdir -p "$folder"
if test $# = 0; then
    set -- megatron megatron-bridge nemo olmo-core torchtitan axolotl llamafactory swift
fi
for tool in "$@"; do
    install "$tool"
done
