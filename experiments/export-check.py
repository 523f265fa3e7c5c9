#!/usr/bin/env python3
"""Exports architectures in every format and compares them: onnxruntime and PyTorch on real images.

    pip install torch safetensors onnx onnxruntime pillow numpy
    cargo build --release
    python experiments/export-check.py --images ~/.local/share/foretell/fashion-mnist \\
        --out experiments/results/export-check

Reference: the network that the safetensors file describes, run op by op in float64 by this script from what
`foretell arch show --json` prints; nothing of it is shared with the exported files. Differences are the largest over
all logits of all images, divided by the largest absolute logit.
"""

import argparse
import csv
import gzip
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ARCHS = ROOT / "tests/fixtures/archs.json"
# Of the largest logit.
TOLERANCE = 1e-4
# Together they have every operation of the design space and every op of the network description.
CHOSEN = [
    "micro/max_pool_3x3",
    "micro/avg_pool_3x3",
    "micro/skip_connect",
    "micro/sep_conv_5x5",
    "micro/dil_conv_3x3",
    "micro/conv_7x1_1x7",
    "micro/msa",
    "micro/cse",
    "micro/none-a",
    "micro/msa-nopreproc",
    "micro/nopreproc-noga",
    "train/7",
    "train/15",
    "deep/0",
    "dense/5",
    "bnfree/5",
    "search/2",
    "named/DARTS",
    "named/ViT",
    "named/resnet50",
]
OPERATIONS = (
    "max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 dil_conv_5x5 conv_1x1 "
    "conv_7x1_1x7 conv_3x3 conv_5x5 conv_7x7 msa cse none"
).split()
KINDS = (
    "input conv linear batch_norm layer_norm relu gelu hard_swish max_pool avg_pool global_avg_pool squeeze_mean excite "
    "attention pos_enc add concat zeros subsample crop flatten dropout"
).split()


def pixels_of(folder, count):
    with gzip.open(Path(folder) / "t10k-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]


def prepared_by_hand(pixels, mean, sd):
    """Grey to three channels, a black margin of two pixels, normalised."""
    pixels = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))[:, None].repeat(3, 1).astype(np.float64) / 255
    return (pixels - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(sd, (1, 3, 1, 1))


def reference(network, tensors, images):
    """Logits in float64, op by op."""
    names = [param["name"] for param in network["params"]]
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    values = []
    for op in network["ops"]:
        kind = op["kind"]
        x = [values[i] for i in op["inputs"]]
        weight = tensors[names[op["weight"]]] if "weight" in op else None
        bias = tensors[names[op["bias"]]] if op.get("bias") is not None else None
        if kind == "input":
            y = torch.from_numpy(images)
        elif kind == "conv":
            y = F.conv2d(x[0], weight, None, op["stride"], op["padding"], op["dilation"], op["groups"])
        elif kind == "linear":
            y = torch.einsum("oi,nihw->nohw", weight, x[0])
            y = y if bias is None else y + bias[:, None, None]
        elif kind == "batch_norm":
            module = names[op["weight"]].removesuffix(".weight")
            mean, variance = tensors[module + ".running_mean"], tensors[module + ".running_var"]
            y = F.batch_norm(x[0], mean, variance, weight, bias, eps=1e-5)
        elif kind == "layer_norm":
            y = F.layer_norm(x[0].movedim(1, -1), weight.shape, weight, bias, 1e-5).movedim(-1, 1)
        elif kind == "relu":
            y = x[0].clamp(min=0)
        elif kind == "gelu":
            y = F.gelu(x[0])
        elif kind == "hard_swish":
            y = x[0] * (x[0] + 3).clamp(0, 6) / 6
        elif kind == "max_pool":
            y = F.max_pool2d(x[0], op["kernel"], op["stride"], op["padding"])
        elif kind == "avg_pool":
            y = F.avg_pool2d(x[0], op["kernel"], op["stride"], op["padding"], count_include_pad=False)
        elif kind in ("global_avg_pool", "squeeze_mean"):
            y = x[0].mean((2, 3), keepdim=True)
        elif kind == "excite":
            y = x[0] * x[1]
        elif kind == "attention":
            n, _, h, w = x[0].shape
            q, k, v = x[0].reshape(n, 3, op["heads"], op["head_dim"], h * w).unbind(1)
            shares = (q.transpose(2, 3) @ k / op["head_dim"] ** 0.5).softmax(-1)
            y = (v @ shares.transpose(2, 3)).reshape(n, -1, h, w)
        elif kind == "pos_enc":
            y = x[0] + weight
        elif kind == "add":
            y = x[0] + x[1]
        elif kind == "concat":
            y = torch.cat(x, 1)
        elif kind == "zeros":
            y = torch.zeros_like(x[0])
        elif kind == "subsample":
            y = x[0][:, :, :: op["stride"], :: op["stride"]]
        elif kind == "crop":
            y = x[0][:, :, 1:, 1:]
        elif kind == "flatten":
            y = x[0].reshape(len(images), -1, 1, 1)
        elif kind == "dropout":
            y = x[0]
        else:
            sys.exit(f"unknown op {kind}")
        values.append(y)
    return values[-1].reshape(len(images), -1).numpy()


def python_module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(arch, args, folder):
    stem = folder / arch.replace("/", "__")
    command = [args.foretell, "export", "--arch", f"{ARCHS}#{arch}", "--format", "pytorch,onnx", "--out", stem]
    command += ["--images", args.images, "--eval-images", str(args.eval_images)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    files = {ending: stem.with_name(f"{stem.name}.{ending}") for ending in ("safetensors", "onnx", "py")}
    shown = [args.foretell, "arch", "show", f"{ARCHS}#{arch}", "--json"]
    network = json.loads(subprocess.run(shown, check=True, capture_output=True).stdout)
    tensors = load_file(files["safetensors"])
    with safe_open(files["safetensors"], "pt") as file:
        metadata = file.metadata()
    prepared = json.loads(metadata["input"])
    pixels = pixels_of(args.images, args.count)
    images = prepared_by_hand(pixels, prepared["mean"], prepared["sd"])
    wanted = reference(network, tensors, images)
    largest = np.abs(wanted).max()
    difference = lambda logits: np.abs(logits - wanted).max() / largest

    model = onnx.load(files["onnx"])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    run = lambda batch: session.run(["logits"], {"images": batch.astype(np.float32)})[0]
    by_batch = run(images)
    by_image = np.concatenate([run(image[None]) for image in images])
    runtime = difference(by_batch)

    module = python_module(files["py"])
    with torch.inference_mode():
        net = module.load()
        batch = torch.from_numpy(images).float()
        by_torch = net(batch).numpy()
        one_by_one = np.concatenate([net(image[None]).numpy() for image in batch])
        image = folder / "image.png"
        Image.fromarray(pixels[0]).save(image)
        from_file = np.abs(module.prepare(image).numpy()[0] - images[0]).max()
    told = subprocess.run([sys.executable, files["py"], image], check=True, capture_output=True, text=True).stdout
    right_class = module.CLASSES[wanted[0].argmax()] in told
    accuracy = json.loads(metadata["accuracy"])
    kinds = {op["kind"] for op in network["ops"]}
    row = {
        "architecture": arch,
        "parameters": sum(t.numel() for n, t in tensors.items() if "running" not in n and "num_batches" not in n),
        "batch_norms": sum(name.endswith("running_mean") for name in tensors),
        "images": len(images),
        "largest_logit": f"{largest:.4g}",
        "onnxruntime": f"{runtime:.2e}",
        "onnxruntime_single_images": f"{difference(by_image):.2e}",
        "pytorch": f"{difference(by_torch):.2e}",
        "pytorch_single_images": f"{difference(one_by_one):.2e}",
        "classes_that_differ": sum(int((y.argmax(1) != wanted.argmax(1)).sum()) for y in (by_batch, by_torch)),
        "opset": model.opset_import[0].version,
        "onnx_kb": files["onnx"].stat().st_size // 1000,
        "python_lines": len(files["py"].read_text().splitlines()),
        "image_file": f"{from_file:.1e}",
        "image_file_class": "same" if right_class else "other",
    }
    for split in accuracy:
        for kind in ("batch_statistics", "stored_statistics"):
            row[f"{split['split']}_{kind}"] = f"{split[kind]['accuracy']:.4f}"
    kept = ("onnxruntime", "onnxruntime_single_images", "pytorch", "pytorch_single_images", "image_file")
    worst = max(float(row[key]) for key in kept)
    return row, kinds, worst if right_class else np.inf


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of Fashion-MNIST")
    parser.add_argument("--foretell", default=ROOT / "target/release/foretell", help="the program")
    parser.add_argument("--count", type=int, default=64, help="test images that logits are compared on")
    parser.add_argument("--eval-images", type=int, default=1024, help="images that accuracies are measured on")
    parser.add_argument("--out", type=Path, help="folder for export-check.csv and environment.txt")
    parser.add_argument("architectures", nargs="*", default=CHOSEN, help="ids in tests/fixtures/archs.json")
    args = parser.parse_args()
    torch.set_num_threads(2)
    rows, seen, failed = [], set(), []
    records = json.loads(ARCHS.read_text())
    genotypes = {record["id"]: record.get("args", {}).get("genotype", {}) for record in records}
    operations = set()
    for arch in args.architectures:
        with tempfile.TemporaryDirectory() as folder:
            row, kinds, worst = check(arch, args, Path(folder))
        rows.append(row)
        seen |= kinds
        for cell in ("normal", "reduce"):
            operations |= {op for op, _ in genotypes[arch].get(cell, [])}
        print(f"{arch:24} onnxruntime {row['onnxruntime']}  pytorch {row['pytorch']}", flush=True)
        if not worst <= TOLERANCE:
            failed.append(arch)
    print(f"{len(rows)} architectures, largest difference allowed: {TOLERANCE}")
    for what, unseen in (("operations", set(OPERATIONS) - operations), ("ops of networks", set(KINDS) - seen)):
        print(f"{what} never met: {', '.join(sorted(unseen)) or '-'}")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        keys = max((list(row) for row in rows), key=len)
        with open(args.out / "export-check.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, keys, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        versions = [f"{m.__name__} {m.__version__}" for m in (torch, onnx, onnxruntime, np)]
        python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        (args.out / "environment.txt").write_text("\n".join([python, *versions]) + "\n")
    if failed:
        sys.exit(f"differences above {TOLERANCE}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
