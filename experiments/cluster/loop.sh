#!/bin/sh
# Tasks of a designed sweep on this host, as many as are asked for, until it is done:
#     sh experiments/cluster/loop.sh RUN 4
# Each takes the GPU in its turn, where there are some. Any host that sees RUN may add its own.
run=$1 count=$2 number=0
while [ "$number" -lt "$count" ]; do
    mixopt work "$run" --task "$number/$count" --trust &
    number=$((number + 1))
done
wait
