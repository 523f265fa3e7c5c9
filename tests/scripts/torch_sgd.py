"""Writes tests/fixtures/sgd/{trace.json,initial.safetensors}: a small network trained by PyTorch's SGD.

    foretell arch show tests/fixtures/sgd/arch.json --json > network.json
    python tests/scripts/torch_sgd.py network.json tests/fixtures/sgd

One batch of 24 images for all steps (so that the order of the images does not matter), gradient clipping, momentum,
coupled weight decay, warm-up and cosine over the learning rate, batch norm with running statistics. The network is
read from foretell's JSON and run by PyTorch's own functions; numbers in float64 (and the losses in float32 beside).
"""

import json
import math
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

STEPS, WARMUP, LR, MOMENTUM, DECAY, CLIP = 12, 2, 0.2, 0.9, 0.01, 1.5
IMAGES, CLASSES = 24, 3


def pixels():
    """uint8 [24, 3, 32, 32], row-major element n: a hash of n, brighter for higher classes."""
    n = torch.arange(IMAGES * 3 * 32 * 32, dtype=torch.int64)
    u = (n * 2654435761) % 2**32
    u = u ^ (u >> 16)
    u = (u * 2246822519) % 2**32
    noise = (u >> 8) % 128
    label = (n // (3 * 32 * 32)) % CLASSES
    row = (n // 32) % 32
    return (noise + label * 20 + row * (label + 1)).clamp(max=255).view(IMAGES, 3, 32, 32)


class Network(torch.nn.Module):
    def __init__(self, spec, initial, dtype):
        super().__init__()
        self.ops = spec["ops"]
        values = {name: tensor.to(dtype) for name, tensor in initial.items()}
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(values[p["name"]]) for p in spec["params"]])
        self.running = {}

    def forward(self, images):
        out = []
        for op in self.ops:
            x = [out[i] for i in op["inputs"]]
            w = self.weights[op["weight"]] if "weight" in op else None
            b = self.weights[op["bias"]] if op.get("bias") is not None else None
            kind = op["kind"]
            if kind == "input":
                y = images
            elif kind == "conv":
                y = F.conv2d(x[0], w, None, op["stride"], op["padding"], op["dilation"], op["groups"])
            elif kind == "linear":
                y = F.linear(x[0].flatten(1), w, b)[:, :, None, None]
            elif kind == "batch_norm":
                new = (torch.zeros_like(w).detach(), torch.ones_like(w).detach())
                mean, var = self.running.setdefault(op["weight"], new)
                y = F.batch_norm(x[0], mean, var, w, b, training=True, momentum=0.1, eps=1e-5)
            elif kind == "relu":
                y = F.relu(x[0])
            elif kind == "max_pool":
                y = F.max_pool2d(x[0], op["kernel"], op["stride"], op["padding"])
            elif kind == "avg_pool":
                y = F.avg_pool2d(x[0], op["kernel"], op["stride"], op["padding"], count_include_pad=False)
            elif kind == "add":
                y = x[0] + x[1]
            elif kind == "concat":
                y = torch.cat(x, 1)
            elif kind == "crop":
                y = x[0][:, :, 1:, 1:]
            elif kind == "global_avg_pool":
                y = x[0].mean((2, 3), keepdim=True)
            else:
                raise ValueError(kind)
            out.append(y)
        return out[-1].flatten(1)


def initial_weights(spec):
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for p in spec["params"]:
        shape = p["shape"]
        if len(shape) > 1:
            bound = 1.5 / math.sqrt(math.prod(shape[1:]))
            value = (2 * torch.rand(shape, generator=generator) - 1) * bound
        elif p["name"].endswith("weight"):
            value = 1 + 0.2 * torch.randn(shape, generator=generator)
        else:
            value = 0.1 * torch.randn(shape, generator=generator)
        tensors[p["name"]] = value.float().contiguous()
    return tensors


def train(spec, initial, dtype):
    network = Network(spec, initial, dtype)
    images = (pixels().to(dtype) / 255 - 0.5) / 0.25
    labels = torch.arange(IMAGES) % CLASSES
    optimizer = torch.optim.SGD(network.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    factor = lambda s: (s + 1) / WARMUP if s < WARMUP else 0.5 * (1 + math.cos(math.pi * (s - WARMUP) / (STEPS - WARMUP)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP).item())
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    return network, losses, norms


def main():
    spec = json.load(open(sys.argv[1]))
    folder = sys.argv[2]
    initial = initial_weights(spec)
    save_file(initial, f"{folder}/initial.safetensors")
    network, losses, norms = train(spec, initial, torch.float64)
    _, losses32, _ = train(spec, initial, torch.float32)
    names = [p["name"] for p in spec["params"]]
    running = {
        names[index].removesuffix(".weight"): [mean.tolist(), var.tolist()]
        for index, (mean, var) in network.running.items()
    }
    last = {
        name: [weight.sum().item(), weight.abs().sum().item()] + weight.flatten()[:4].tolist()
        for name, weight in zip(names, network.weights)
    }
    trace = {
        "torch": torch.__version__,
        "steps": STEPS, "warmup": WARMUP, "lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "clip": CLIP,
        "losses": losses, "losses_f32": losses32, "gradient_norms": norms, "running": running, "last": last,
    }
    json.dump(trace, open(f"{folder}/trace.json", "w"))
    print("losses", losses, "\nfloat32", losses32, "\nnorms", norms)


main()
