"""Trains the same model in f32 and in bfloat16, with several seeds, and compares the losses on held-out text.

    python bench/precision.py --data tinyshakespeare.txt --seeds 5 -- --config configs/shakespeare-char-cpu.toml
    python bench/precision.py --data tinyshakespeare.txt --seeds 3 -- --preset gpt2 --tokenizer gpt2 --n-ctx 128 \\
        --batch 2 --max-steps 200 --val-fraction 0.02

What stands after `--` goes to `gpt2 train`. A seed decides the weights and the order of the data, so that the two runs
of a seed differ in their precision alone; the table ends with the mean difference and its standard error.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpt2", default="target/release/gpt2")
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    flags = [flag for flag in args.flags if flag != "--"]
    differences = []
    for seed in range(1, args.seeds + 1):
        loss, seconds = {}, {}
        for precision in ["f32", "bf16"]:
            with tempfile.TemporaryDirectory() as out:
                fixed = ["--data", args.data, "--out", out, "--precision", precision, "--seed", str(seed), "--json"]
                fixed += ["--save-interval", "0", "--eval-interval", "1000000"]
                command = [args.gpt2, "train", *flags, *fixed]
                run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                outcome = json.loads(run.stdout)
                loss[precision], seconds[precision] = outcome["val"]["loss"], outcome["seconds"]
        differences.append(loss["bf16"] - loss["f32"])
        print(f"seed {seed}: " + ", ".join(f"{p} {loss[p]:.4f} in {seconds[p]:.0f} s" for p in loss), flush=True)
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    print(f"bf16 - f32: {mean:+.4f} ± {error:.4f} ({abs(mean) / error:.1f} standard errors)")


if __name__ == "__main__":
    main()
