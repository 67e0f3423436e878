#!/usr/bin/env bash
# Summaries: the small base model learns to say in a sentence what an abstract says, and is held to the abstract's first
# and random sentences by ROUGE, on abstracts that it has not seen. Half an hour on two cores.
#
#   runs/pretrain.sh && runs/summary.sh     writes out/runs/summary
source "$(dirname "$0")/common.sh"
need_data

"$GPT2" finetune -m "$OUT/base" --out "$OUT/summary" --data "$DATA/en/summ-scitldr-train.jsonl.gz" \
    --val "$DATA/en/summ-scitldr-dev.jsonl" --cut-long --epochs 5 --batch 16 --lr 1e-3 --dropout 0.1 --seed 1 "$@"
"$GPT2" summarize -m "$OUT/summary" "$DATA/en/summ-scitldr-dev.jsonl" --max-sentences 1 --seed 1 --json >"$OUT/summaries.jsonl"
tail -n 1 "$OUT/summaries.jsonl"
