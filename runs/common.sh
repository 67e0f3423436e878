# What the recipes share: where the program, the texts and the results are. Each may be set from outside.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
GPT2=${GPT2:-$ROOT/target/release/gpt2}
DATA=${DATA:-$ROOT/../shared/data}
OUT=${OUT:-$ROOT/out/runs}
mkdir -p "$OUT"
[[ -x $GPT2 ]] || { echo "there is no $GPT2: build it with cargo build --release, or set GPT2" >&2; exit 1; }

# Whether the real texts are here. Without them the recipes that need them say so, and stop.
need_data() {
    [[ -d $DATA ]] || { echo "SKIPPED: there are no texts in $DATA; set DATA" >&2; exit 0; }
}

# split FILE N TRAIN TEST: the last N lines of FILE (.gz or not) go to TEST, all others to TRAIN.
split() {
    local all=$OUT/split.tmp
    case $1 in *.gz) gzip -dc "$1" ;; *) cat "$1" ;; esac >"$all"
    head -n -"$2" "$all" >"$3"
    tail -n "$2" "$all" >"$4"
    rm "$all"
}
