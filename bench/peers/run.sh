#!/usr/bin/env bash
# Builds gpt2, installs PyTorch into a virtual environment under target/, and compares training, in turn in one run.
#
#   bench/peers/run.sh                                    GPT-2 124M, bfloat16, 4 x 256: every variant of PyTorch
#   bench/peers/run.sh --precision f32 --threads 1        the flags are those of train.py
#   bench/peers/run.sh --preset nano --batch 12 --seq 64 --steps 40
set -euo pipefail
cd "$(dirname "$0")/../.."

python=target/peers/bin/python
if [[ ! -x $python ]]; then
    python3 -m venv target/peers
    target/peers/bin/pip install --quiet --requirement tests/golden/requirements.txt
fi
cargo build --release
"$python" bench/peers/train.py "$@"
