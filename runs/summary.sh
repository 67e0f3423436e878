#!/usr/bin/env bash
# Summaries: the small base model, which has seen no abstract, learns from abstracts with a sentence about each. Its own
# sentences, and those that it chooses from the abstract, are held to the abstract's first and random sentences by ROUGE,
# on abstracts that it has not seen. A quarter of an hour on two cores.
#
#   runs/pretrain.sh && runs/summary.sh     writes out/runs/summary
source "$(dirname "$0")/common.sh"
need_data

train=$DATA/en/summ-scitldr-train.jsonl.gz
test=$DATA/en/summ-scitldr-dev.jsonl
# All words are learnt, not the answers' alone: so it learns the language of abstracts, too.
"$GPT2" finetune -m "$OUT/base" --out "$OUT/summary" --data "$train" --val "$test" --cut-long --train-on all \
    --epochs 3 --batch 16 --lr 1e-3 --dropout 0.1 --seed 1 "$@"
for model in base summary; do
    "$GPT2" eval -m "$OUT/$model" --answers "$test" --cut-long
done
for mode in "" --extract; do
    "$GPT2" summarize -m "$OUT/summary" "$test" --max-sentences 1 $mode --seed 1 --json >"$OUT/summaries$mode.jsonl"
    tail -n 1 "$OUT/summaries$mode.jsonl"
done
