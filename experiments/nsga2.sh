#!/bin/sh
# NSGA-II against random search at equal trials: accuracy against multiply-accumulates, both deterministic, on the
# small space with the bundled images and hypernetwork, 5 seeds each. Six minutes on two cores.
#
# sh experiments/nsga2.sh [TRIALS] [FOLDER OF THE RUNS]     (FORETELL names another program than target/release's)
set -eu
trials=${1:-500}
runs=${2:-runs/nsga2}
foretell=${FORETELL:-target/release/foretell}
out=$(dirname "$0")/results/nsga2
for seed in 0 1 2 3 4; do
    for strategy in random nsga2; do
        "$foretell" search --objective accuracy,macs --strategy "$strategy" --seed "$seed" --trials "$trials" \
            --eval-images 256 --noise none --no-latency --out "$runs/$strategy-$seed" >/dev/null
    done
done
mkdir -p "$out"
"$foretell" compare "$runs"/random-? "$runs"/nsga2-? --out "$out" | tee "$out/printed.txt"
