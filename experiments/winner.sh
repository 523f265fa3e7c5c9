#!/usr/bin/env bash
# What a search finds, trained: the winner of a search of 30 minutes, networks of DARTS's cells and a plain sample of the
# space, all below the same number of parameters, are trained from He's random weights on the same schedule with
# several seeds and tested on images that nobody has seen. Of the sample only the best few by the first seed are trained
# with the others, chosen by their accuracy on those very images: that favours the sample.
#
#   experiments/winner.sh OUT
#
# Settings by environment, with their defaults (hours on two cores):
#   FORETELL="foretell"   the program
#   IMAGES=fashion-mnist TRAIN_ON=train TEST_IMAGES=10000
#   BUDGET=1800           seconds of search
#   DRAWS=10 FINALISTS=3  architectures of the sample, and how many of them are trained with every seed
#   SEEDS="1 2 3"         of the training
#   EPOCHS=3 BATCH=64 LR=0.05
#   CELLS=experiments/darts-cells.jsonl
#
# Interrupted, the same command goes on. OUT/results.csv has a row for every training; the table that is printed, the
# means over seeds.
set -euo pipefail
OUT=${1:?usage: winner.sh OUT}
FORETELL=${FORETELL:-foretell}
IMAGES=${IMAGES:-fashion-mnist} TRAIN_ON=${TRAIN_ON:-train} TEST_IMAGES=${TEST_IMAGES:-10000}
BUDGET=${BUDGET:-1800} DRAWS=${DRAWS:-10} FINALISTS=${FINALISTS:-3} SEEDS=${SEEDS:-1 2 3}
EPOCHS=${EPOCHS:-3} BATCH=${BATCH:-64} LR=${LR:-0.05}
CELLS=${CELLS:-$(dirname "$0")/darts-cells.jsonl}
# The limit of the space `small`, which DARTS's cells keep as well.
LIMIT=500000

mkdir -p "$OUT"
if [ ! -f "$OUT/winner.jsonl" ]; then
    resume=()
    [ -f "$OUT/search/study.json" ] && resume=(--resume)
    $FORETELL search --images "$IMAGES" --refine --seconds "$BUDGET" --max-params "$LIMIT" --seed 0 \
        --out "$OUT/search" ${resume[@]+"${resume[@]}"}
    head -1 "$OUT/search/leaderboard.jsonl" > "$OUT/winner.jsonl.part"
    mv "$OUT/winner.jsonl.part" "$OUT/winner.jsonl"
fi
# A seed that neither the truth set nor the training of the hypernetwork has.
$FORETELL space sample small --count "$DRAWS" --seed 3000 > "$OUT/sample.jsonl"
cp "$CELLS" "$OUT/cells.jsonl"

ids() { sed -E 's/^\{"id":"([^"]+)".*/\1/' "$1"; }

# Of FILE the architecture ID with SEED, unless that is done.
train() {
    local file=$1 id=$2 seed=$3 run resume=()
    run="$OUT/runs/$file-${id//\//-}-seed$seed"
    [ -f "$run/result.csv" ] && return
    [ -f "$run/checkpoint.safetensors" ] && resume=(--resume)
    $FORETELL train "$OUT/$file.jsonl#$id" --images "$IMAGES" --train-on "$TRAIN_ON" --epochs "$EPOCHS" \
        --batch "$BATCH" --lr "$LR" --seed "$seed" --test-images "$TEST_IMAGES" --out "$run" \
        ${resume[@]+"${resume[@]}"} > /dev/null
}

# Of the sample, as `train` has it with SEED: the best by test accuracy.
best() {
    for id in $(ids "$OUT/sample.jsonl"); do
        awk -F, -v id="$id" '
            NR == 1 { for (i = 1; i <= NF; i++) if ($i == "accuracy") column = i }
            END { print $column, id }
        ' "$OUT/runs/sample-${id//\//-}-seed$1/result.csv"
    done | sort -gr | head -n "$FINALISTS" | cut -d' ' -f2
}

first=
for seed in $SEEDS; do
    for file in winner cells; do
        for id in $(ids "$OUT/$file.jsonl"); do train $file "$id" "$seed"; done
    done
    if [ -z "$first" ]; then
        for id in $(ids "$OUT/sample.jsonl"); do train sample "$id" "$seed"; done
        first=$seed
    else
        for id in $(best "$first"); do train sample "$id" "$seed"; done
    fi
done

joined=$OUT/results.csv.part
: > "$joined"
for run in "$OUT"/runs/*/; do
    [ -f "$run/result.csv" ] || continue
    group=$(basename "$run")
    [ -s "$joined" ] || echo "group,$(head -1 "$run/result.csv")" > "$joined"
    echo "${group%%-*},$(tail -1 "$run/result.csv")" >> "$joined"
done
mv "$joined" "$OUT/results.csv"

# Mean and standard error over the seeds of each architecture, best first.
awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    {
        key = $column["group"] "," $column["architecture"]
        n[key]++; params[key] = $column["params"]
        sum[key] += $column["accuracy"]; squares[key] += $column["accuracy"] ^ 2
        noise = $column["noisy"]; sub(/.*=/, "", noise); noisy[key] += noise
    }
    END {
        for (key in n) {
            mean = sum[key] / n[key]
            spread = n[key] > 1 ? sqrt((squares[key] / n[key] - mean ^ 2 + 1e-15) / (n[key] - 1)) : 0
            printf "%s,%d,%d,%.4f,%.4f,%.4f\n", key, params[key], n[key], mean, spread, noisy[key] / n[key]
        }
    }
' "$OUT/results.csv" | sort -t, -k5,5gr | { echo "group,architecture,params,seeds,accuracy,se,noisy"; cat; } > "$OUT/means.csv"
column -s, -t "$OUT/means.csv" 2>/dev/null || cat "$OUT/means.csv"
