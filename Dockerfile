# The command line with every extra, for CPUs or for CUDA.
#
#   docker build -t mixopt:cpu .
#   docker build -t mixopt:cuda --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 --build-arg TORCH=cu128 .
#   docker run --rm -v "$PWD:/work" mixopt:cpu run experiment.yaml --out runs/mine
#   docker run --rm --gpus all -v "$PWD:/work" mixopt:cuda run experiment.yaml --out runs/mine
#
# TORCH chooses torch's build: without it a CPU image would carry 3 GB of CUDA libraries.
ARG BASE=ubuntu:24.04
FROM ${BASE}
ARG TORCH=cpu
ARG PYTHON=3.12
COPY --from=ghcr.io/astral-sh/uv:0.9 /uv /usr/local/bin/uv
# A compiler: proxies compile their step. git: a run notes the commit that it was made from.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN uv venv --python ${PYTHON} /opt/mixopt \
    && uv pip install --python /opt/mixopt --torch-backend ${TORCH} --no-cache "/src[all]" \
    && rm -rf /src
ENV PATH=/opt/mixopt/bin:$PATH
WORKDIR /work
ENTRYPOINT ["mixopt"]
CMD ["--help"]
