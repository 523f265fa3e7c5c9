#!/usr/bin/env python3
"""Runs the same layers and networks in foretell and in PyTorch, in turns, and prints ratios of their times.

    python3 -m venv venv && venv/bin/pip install torch numpy      # torch from PyPI is enough
    venv/bin/python benches/compare_torch.py [kernels] [networks] [memory] [--out DIR]

foretell's side is `cargo bench --bench compare`, which this script builds and talks to. Networks come as JSON from
`foretell arch show --json` and are rebuilt here in torch.nn.functional. Every row is the median over rounds of
(PyTorch's time / foretell's time), both taken within the same round; results of both sides are compared first. The
share of CPU time that other processes took meanwhile is printed with every row: times taken beside other work mean
nothing.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ARCHS = os.path.join(ROOT, "tests", "fixtures", "archs.json")


def scattered(count, scale, centre=0.0):
    """The same numbers as in compare.rs."""
    index = np.arange(count, dtype=np.float64) + 0.5
    return (np.modf(index * 0.618033988749895)[0] * 2 * scale - scale).astype(np.float32) + np.float32(centre)


class Ours:
    """The Rust side."""

    def __init__(self, command, threads):
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("the foretell side stopped; see its message above")
        return json.loads(answer)


class Torch:
    """A network rebuilt from its IR, eager."""

    def __init__(self, network, batch, channels_last=False):
        self.ops = network["ops"]
        self.params = []
        for param in network["params"]:
            shape = param["shape"]
            numel = math.prod(shape)
            if len(shape) > 1:
                values = scattered(numel, math.sqrt(3.0 / (numel // shape[0])))
            else:
                values = scattered(numel, 0.1, 1.0)
            value = torch.from_numpy(values).reshape(shape)
            if channels_last and len(shape) == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            self.params.append(value.requires_grad_())
        shape = [batch, *self.ops[0]["shape"]]
        self.images = torch.from_numpy(scattered(math.prod(shape), 1.0)).reshape(shape)
        if channels_last:
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        classes = self.ops[-1]["shape"][0]
        self.labels = torch.arange(batch) % min(classes, 256)
        self.last_use = {}
        for index, op in enumerate(self.ops):
            for source in op["inputs"]:
                self.last_use[source] = index

    def logits(self):
        values = {}
        for index, op in enumerate(self.ops):
            values[index] = self.apply(op, [values[source] for source in op["inputs"]])
            for source in set(op["inputs"]):
                if self.last_use[source] == index:
                    del values[source]
        return values[len(self.ops) - 1].flatten(1)

    def apply(self, op, inputs):
        kind = op["kind"]
        x = inputs[0] if inputs else None
        weight = self.params[op["weight"]] if "weight" in op else None
        bias = self.params[op["bias"]] if op.get("bias") is not None else None
        if kind == "input":
            return self.images
        if kind == "conv":
            return F.conv2d(x, weight, None, op["stride"], op["padding"], op["dilation"], op["groups"])
        if kind == "linear":
            if x.shape[2] * x.shape[3] == 1:
                return F.linear(x.flatten(1), weight, bias)[:, :, None, None]
            return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
        if kind == "batch_norm":
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, 1e-5)
        if kind == "layer_norm":
            return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], weight, bias, 1e-5).permute(0, 3, 1, 2)
        if kind == "relu":
            return F.relu(x)
        if kind == "gelu":
            return F.gelu(x)
        if kind == "hard_swish":
            return F.hardswish(x)
        if kind == "max_pool":
            return F.max_pool2d(x, op["kernel"], op["stride"], op["padding"])
        if kind == "avg_pool":
            return F.avg_pool2d(x, op["kernel"], op["stride"], op["padding"], count_include_pad=False)
        if kind in ("global_avg_pool", "squeeze_mean"):
            return F.adaptive_avg_pool2d(x, 1)
        if kind == "excite":
            return x * inputs[1]
        if kind == "attention":
            heads, width = op["heads"], op["head_dim"]
            n, _, h, w = x.shape
            q, k, v = x.reshape(n, 3, heads, width, h * w).transpose(3, 4).unbind(1)
            weights = torch.softmax(q @ k.transpose(2, 3) * width ** -0.5, -1)
            return (weights @ v).transpose(2, 3).reshape(n, heads * width, h, w)
        if kind == "pos_enc":
            return x + weight
        if kind == "add":
            return x + inputs[1]
        if kind == "concat":
            return torch.cat(inputs, 1)
        if kind == "zeros":
            return torch.zeros_like(x)
        if kind == "subsample":
            return x[:, :, :: op["stride"], :: op["stride"]]
        if kind == "crop":
            return x[:, :, 1:, 1:]
        if kind == "flatten":
            return x.flatten(1)[:, :, None, None]
        if kind == "dropout":
            return x
        raise SystemExit(f"unknown op {kind}")

    def run(self, what, times):
        start = time.perf_counter()
        for _ in range(times):
            if what == "forward":
                with torch.no_grad():
                    result = [self.logits()]
            else:
                for param in self.params:
                    param.grad = None
                F.cross_entropy(self.logits(), self.labels).backward()
                result = [param.grad for param in self.params]
        seconds = time.perf_counter() - start
        norm = math.sqrt(sum(float((r.double() ** 2).sum()) for r in result if r is not None))
        return {"seconds": seconds, "norm": norm}


def stack(kind, channels, size, layers):
    """`layers` equal layers between a 1x1 convolution and a global mean."""
    ops = [{"kind": "input", "inputs": [], "shape": [3, size, size]}]
    params = []

    def param(*shape):
        offset = sum(math.prod(p["shape"]) for p in params)
        params.append({"name": f"p{len(params)}", "shape": list(shape), "offset": offset})
        return len(params) - 1

    def add(**op):
        ops.append({"inputs": [len(ops) - 1], "shape": [channels, size, size], **op})

    def conv(inputs, kernel, groups=1, dilation=1):
        padding = [dilation * (k // 2) for k in kernel]
        add(kind="conv", weight=param(channels, inputs // groups, *kernel), stride=[1, 1], padding=padding,
            dilation=dilation, groups=groups)

    conv(3, [1, 1])
    for _ in range(layers):
        if kind.startswith("dense"):
            kernel = [int(k) for k in kind.split()[1].split("x")]
            conv(channels, kernel)
            if kernel[0] != kernel[1]:
                conv(channels, kernel[::-1])
        elif kind.startswith(("depthwise", "dilated")):
            kernel = [int(k) for k in kind.split()[1].split("x")]
            conv(channels, kernel, channels, 2 if kind.startswith("dilated") else 1)
        elif kind == "batch norm":
            add(kind="batch_norm", weight=param(channels), bias=param(channels))
        else:
            add(kind=kind.split()[0] + "_pool", kernel=3, stride=1, padding=1)
    ops.append({"kind": "global_avg_pool", "inputs": [len(ops) - 1], "shape": [channels, 1, 1]})
    return {"ops": ops, "params": params, "pruned": [], "n_cells": 0}


KERNELS = [
    *((f"dense {k}", c, s) for k in ("3x3", "1x1", "1x7") for c, s in ((32, 32), (64, 16), (128, 8))),
    *((f"{d} {k}", c, s) for d in ("depthwise", "dilated") for k in ("3x3", "5x5")
      for c, s in ((32, 32), (64, 16), (128, 8))),
    *((k, c, s) for k in ("batch norm", "max pool", "avg pool") for c, s in ((32, 32), (64, 16))),
]


def cpu_seconds():
    """CPU time of all processes, and of this one with its children's threads."""
    with open("/proc/stat") as file:
        fields = [int(x) for x in file.readline().split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Quiet:
    """Share of the machine that other processes took between two moments."""

    def __init__(self, ours):
        self.pids = [os.getpid(), ours.process.pid]
        self.start = (time.perf_counter(), cpu_seconds(), sum(map(process_seconds, self.pids)))

    def others(self):
        wall = time.perf_counter() - self.start[0]
        busy = cpu_seconds() - self.start[1] - (sum(map(process_seconds, self.pids)) - self.start[2])
        return max(busy, 0.0) / (wall * os.cpu_count())


def measure(ours, network, batch, what, rounds, layouts=(False,), least=0.15):
    """Seconds of one pass per round: ours, then one list per layout of PyTorch's.

    A turn lasts at least `least` seconds, so that the passes right after a pause, with clocks and caches as the other
    side left them, count little, as in a training that goes on for minutes."""
    subjects = [Torch(network, batch, layout) for layout in layouts]
    sides = [lambda k: ours.ask(run=what, times=k), *(lambda k, s=s: s.run(what, k) for s in subjects)]
    ours.ask(load=network, batch=batch)
    norms, times = [], []
    for side in sides:
        side(1)
        first = side(1)
        norms.append(first["norm"])
        times.append(max(1, math.ceil(least / max(first["seconds"], 1e-6))))
    for norm in norms[1:]:
        if not math.isclose(norm, norms[0], rel_tol=2e-3):
            print(f"  results differ: {norms}", file=sys.stderr)
    results = [[] for _ in sides]
    for _ in range(rounds):
        for side, count, result in zip(sides, times, results):
            time.sleep(0.01)
            result.append(side(count)["seconds"] / count)
    return results


def difference(ours, kind, channels, size, batch, what, rounds, layouts=(False,)):
    """Times per layer, without what the stack has around its layers."""
    layers = 4
    full = measure(ours, stack(kind, channels, size, layers + 1), batch, what, rounds, layouts)
    base = measure(ours, stack(kind, channels, size, 1), batch, what, rounds, layouts)
    return [[max(a - statistics.median(b), 1e-9) / layers for a in f] for f, b in zip(full, base)]


def ratio(result, ours):
    ratios = sorted(t / o for t, o in zip(result, ours))
    quarter = len(ratios) // 4
    return statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]


def geometric(values):
    return math.exp(statistics.fmean(math.log(v) for v in values))


def kernels(ours, args, peak):
    rows = []
    for kind, channels, size in KERNELS:
        if args.only and args.only not in f"{kind} {channels}":
            continue
        quiet = Quiet(ours)
        train = difference(ours, kind, channels, size, args.batch, "train", args.rounds)
        forward = difference(ours, kind, channels, size, args.batch, "forward", args.rounds, (False, True))
        layer = stack(kind, channels, size, 1)
        taps = sum(math.prod(p["shape"]) for p in layer["params"][1:] if len(p["shape"]) > 1)
        flops = 2 * taps * size * size * args.batch
        t, low, high = ratio(train[1], train[0])
        f = ratio(forward[1], forward[0])[0]
        last = ratio(forward[2], forward[0])[0]
        seconds = statistics.median(train[0])
        rows.append({
            "layer": kind, "channels": channels, "size": size,
            "train_ms": seconds * 1e3, "train_ratio": t, "train_ratio_q1": low, "train_ratio_q3": high,
            "train_gflops": 3 * flops / seconds / 1e9, "forward_ms": statistics.median(forward[0]) * 1e3,
            "forward_ratio_default": f, "forward_ratio_channels_last": last, "forward_ratio_best": min(f, last),
            "forward_gflops": flops / statistics.median(forward[0]) / 1e9, "others": quiet.others()})
        r = rows[-1]
        print(f"{kind:14} {channels:4} {size:3}  train {r['train_ms']:7.2f} ms x{t:6.2f} ({low:.2f}-{high:.2f}) "
              f"{r['train_gflops']:5.0f} GFLOP/s   forward {r['forward_ms']:7.2f} ms x{f:6.2f} "
              f"channels-last x{last:6.2f} {r['forward_gflops']:5.0f} GFLOP/s ({r['forward_gflops'] / peak:4.0%})  "
              f"others {r['others']:.0%}", flush=True)
    if rows:
        print(f"geometric means: train x{geometric([r['train_ratio'] for r in rows]):.2f}, forward against the "
              f"better layout x{geometric([r['forward_ratio_best'] for r in rows]):.2f}")
    return rows


def fixture_networks(args):
    with open(ARCHS) as file:
        archs = json.load(file)
    for arch in archs:
        if not arch["id"].startswith(("train/", "deep/", "dense/", "search/")):
            continue
        if args.only and args.only not in arch["id"]:
            continue
        command = [args.foretell, "arch", "show", f"{ARCHS}#{arch['id']}", "--json"]
        shown = subprocess.run(command, capture_output=True, text=True)
        if shown.returncode:
            raise SystemExit(shown.stderr)
        yield arch["id"], json.loads(shown.stdout)


def networks(ours, args, peak):
    rows = []
    for name, network in fixture_networks(args):
        quiet = Quiet(ours)
        macs = ours.ask(load=network, batch=args.batch)["macs"]
        forward = measure(ours, network, args.batch, "forward", args.rounds, (False, True))
        train = measure(ours, network, args.batch, "train", args.rounds)
        f, low, high = ratio(forward[1], forward[0])
        t, tlow, thigh = ratio(train[1], train[0])
        last = ratio(forward[2], forward[0])[0]
        rates = [k * 2 * macs * args.batch / statistics.median(r[0]) / 1e9 for k, r in ((1, forward), (3, train))]
        rows.append({
            "network": name, "mmacs": macs / 1e6, "forward_ms": statistics.median(forward[0]) * 1e3,
            "forward_ratio": f, "forward_ratio_q1": low, "forward_ratio_q3": high,
            "forward_ratio_channels_last": last, "forward_gflops": rates[0], "forward_peak": rates[0] / peak,
            "train_ms": statistics.median(train[0]) * 1e3, "train_ratio": t, "train_ratio_q1": tlow,
            "train_ratio_q3": thigh, "train_gflops": rates[1], "train_peak": rates[1] / peak,
            "others": quiet.others()})
        r = rows[-1]
        print(f"{name:10} {macs / 1e6:7.0f} MMAC  forward {r['forward_ms']:7.1f} ms x{f:5.2f} ({low:.2f}-{high:.2f}) "
              f"channels-last x{last:5.2f} {rates[0]:4.0f} GFLOP/s ({rates[0] / peak:4.0%})  train {r['train_ms']:7.1f} ms "
              f"x{t:5.2f} ({tlow:.2f}-{thigh:.2f}) {rates[1]:4.0f} GFLOP/s ({rates[1] / peak:4.0%})  "
              f"others {r['others']:.0%}", flush=True)
    if rows:
        print(f"geometric means: forward x{geometric([r['forward_ratio'] for r in rows]):.2f}, train "
              f"x{geometric([r['train_ratio'] for r in rows]):.2f}")
    return rows


def status(pid, field):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return float("nan")


def memory(args):
    """Peak of resident memory over one training pass, each network in fresh processes, without what stood before."""
    rows = []
    for name, network in fixture_networks(args):
        ours = Ours(args.compare, args.threads)
        ours.ask(peak=True)
        before = status(ours.process.pid, "VmRSS")
        ours.ask(load=network, batch=args.batch)
        ours.ask(run="train", times=2)
        own = status(ours.process.pid, "VmHWM") - before
        ours.process.kill()
        child = subprocess.run([sys.executable, __file__, "--child"], input=json.dumps([network, args.batch]),
                               capture_output=True, text=True, check=True)
        other = float(child.stdout)
        rows.append({"network": name, "foretell_mib": own, "torch_mib": other, "ratio": other / own})
        print(f"{name:10} foretell {own:7.0f} MiB  PyTorch {other:7.0f} MiB  x{other / own:.2f}", flush=True)
    if rows:
        print(f"geometric mean: x{geometric([r['ratio'] for r in rows]):.2f}")
    return rows


def child():
    network, batch = json.load(sys.stdin)
    (torch.ones(512, 512) @ torch.ones(512, 512)).sum()
    before = status("self", "VmRSS")
    Torch(network, batch).run("train", 2)
    print(status("self", "VmHWM") - before)


def main():
    if sys.argv[1:] == ["--child"]:
        return child()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["kernels", "networks", "memory"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--out", help="folder for CSV files")
    parser.add_argument("--compare", help="the built compare benchmark; built when absent")
    parser.add_argument("--foretell", help="the built program; built when absent")
    args = parser.parse_args()
    if not args.compare:
        built = subprocess.run(
            ["cargo", "build", "--release", "--bench", "compare", "--bin", "foretell", "--message-format", "json"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        for line in built.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable") and "bench" in message["target"]["kind"]:
                args.compare = message["executable"]
            elif message.get("executable"):
                args.foretell = message["executable"]
    torch.set_num_threads(args.threads)
    ours = Ours(args.compare, args.threads)
    peak = ours.ask(peak=True)["gflops"]
    a = torch.from_numpy(scattered(1024 * 1024, 1.0)).reshape(1024, 1024)
    best = min(timed(lambda: a @ a) for _ in range(12))
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    print(f"{model}, {args.threads} threads, batch {args.batch}, torch {torch.__version__}; product of 1024 x 1024: "
          f"gemm crate {peak:.0f} GFLOP/s, torch {2 * 1024 ** 3 / best / 1e9:.0f} GFLOP/s")
    for part in args.parts:
        rows = memory(args) if part == "memory" else {"kernels": kernels, "networks": networks}[part](ours, args, peak)
        if args.out and rows:
            os.makedirs(args.out, exist_ok=True)
            with open(os.path.join(args.out, f"{part}.csv"), "w", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    print(f"gemm crate again: {ours.ask(peak=True)['gflops']:.0f} GFLOP/s")


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
