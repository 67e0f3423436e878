#!/usr/bin/env bash
# Summaries: the small base model, which has seen no abstract, reads abstracts, then learns to say in a sentence what one
# says. It is held to the abstract's first and random sentences by ROUGE, on abstracts that it has not seen. A quarter of
# an hour on two cores.
#
#   runs/pretrain.sh && runs/summary.sh     writes out/runs/summary
source "$(dirname "$0")/common.sh"
need_data

train=$DATA/en/summ-scitldr-train.jsonl.gz
test=$DATA/en/summ-scitldr-dev.jsonl
# All words of the examples first, so that the language of abstracts is learnt; then the answers alone.
"$GPT2" finetune -m "$OUT/base" --out "$OUT/abstracts" --data "$train" --val "$test" --cut-long --train-on all \
    --epochs 3 --batch 16 --lr 1e-3 --dropout 0.1 --seed 1 "$@"
"$GPT2" finetune -m "$OUT/abstracts" --out "$OUT/summary" --data "$train" --val "$test" --cut-long \
    --epochs 4 --batch 16 --lr 7e-4 --dropout 0.1 --seed 1 "$@"
for model in base abstracts summary; do
    "$GPT2" eval -m "$OUT/$model" --answers "$test" --cut-long
done
