#!/usr/bin/env python3
"""Kills searches with all fidelities at random moments (kill -9), resumes them, compares them with one left alone.

    cargo build --release
    python3 tests/scripts/kill_and_resume.py target/release/foretell [--kills 20] [--seed 0]

Needs nothing but Python. Each session of the killed study runs for a random time, up to what is left of the
uninterrupted run's, with one or two threads and workers. The study is killed again and again until the kills are
used up; when it ends before that, it is removed and begun anew. At the end every study must hold the trials, scores
and kept weights of the one that was left alone, times apart. Prints a row for each kill.
"""

import argparse
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

SEARCH = (
    "search --trials 45 --seed 5 --images fashion-mnist-slice --eval-images 256 --batch 32 --noise 0.1 "
    "--max-macs 6000000 --epochs 1 --train-batch 200 --population 4 --sample 2 "
    "--fidelities predicted@5,sgd:2=17,predicted@1,sgd:2=20,he:5=3,sgd:8=2,trained=1"
).split()
TIMES = {"latency_ms", "latency_p95_ms", "predict_ms"}


def events(run):
    path = run / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["event"] for line in lines[1:]]


def state(run):
    """What a study knows, without what the clock decides."""
    trials = {}
    for event in events(run):
        kind = event["type"]
        if kind == "started":
            trials.setdefault(event["trial"], {})["started"] = (event["hash"], event["arch"])
        elif kind in ("finished", "failed", "rejected", "refined"):
            kept = {k: v for k, v in event.items() if k not in ("trial", "time_ms", "wall_s", "elapsed_s")}
            kept["scores"] = {k: v for k, v in event["scores"].items() if k not in TIMES}
            key = kind if kind != "refined" else event["fidelity"]
            if key in trials[event["trial"]]:
                sys.exit(f"trial {event['trial']} has two outcomes at {key}")
            trials[event["trial"]][key] = kept
    stages = {}
    for event in events(run):
        # A study that ended begins its stages again, with nothing to do.
        if event["type"] == "staged":
            stages.setdefault(event["stage"], [event["fidelity"], event["trials"], event.get("forecast")])
    trials["stages"] = stages
    weights = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (run / "weights").iterdir()}
    return json.loads(json.dumps(trials)), weights


def command(program, run, resume, threads):
    extra = ["--out", str(run), "--threads", str(threads), "--workers", str(threads)]
    return [program, *SEARCH, *extra, *(["--resume"] if resume else [])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = pathlib.Path(folder, "alone"), pathlib.Path(folder, "killed")
        began = time.monotonic()
        subprocess.run(command(arguments.program, alone, False, 1), check=True, **quiet)
        whole_s = time.monotonic() - began
        expected = state(alone)
        refined = sum(event["type"] == "refined" for event in events(alone))
        print(f"left alone: {len(expected[0]) - 1} trials, {refined} trainings, {whole_s:.1f} s")
        known = [event["forecast"] for event in events(alone) if event.get("forecast")]
        if not any(forecast.get("tau") for forecast in known):
            sys.exit("the predictor never had enough to learn from")
        print(f"the predictor: {json.dumps(known[-1])}")

        def finish():
            subprocess.run(command(arguments.program, killed, killed.exists(), 1), check=True, **quiet)
            if state(killed) != expected:
                sys.exit("the killed study differs from the one that was left alone")
            print("  resumed to the end: equal")
            shutil.rmtree(killed)

        kills = 0
        while kills < arguments.kills:
            began_before = (killed / "study.json").exists()
            child = subprocess.Popen(
                command(arguments.program, killed, began_before, rng.choice([1, 2])), **quiet
            )
            try:
                child.wait(rng.uniform(0.02, 0.6) * whole_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                kills += 1
                found = events(killed) if killed.exists() else []
                last = found[-1]["type"] if found else "nothing"
                print(f"kill {kills}: {len(found)} events, the last: {last}")
                continue
            if child.returncode != 0:
                sys.exit(f"the search failed with {child.returncode}")
            finish()
        if (killed / "study.json").exists():
            finish()
        print(f"{kills} kills: all studies equal the one that was left alone")


if __name__ == "__main__":
    main()
