"""Writes tests/fixtures/zero_cost.json: zero-cost scores of a few networks, computed by PyTorch in float64.

    for id in ...; do foretell arch show tests/fixtures/archs.json#$id --json > NETWORKS/${id/\\//_}.json; done
    python tests/scripts/torch_zero_cost.py NETWORKS tests/fixtures/zero_cost.json

A file of NETWORKS is a network in the IR's JSON form; its name, with / for the first _, becomes the id. Weights and
images are hashes of their numbers (`numbers` below; tests/zero_cost.rs makes the same). Scores:
- synflow (arXiv 2006.05467): absolute parameters, an image of ones, norms left out as in arXiv 2101.08134; activations
  and gates left out, attention passes its values on; ln of the sum of |w dR/dw| over convolutions and linear layers.
- naswot (arXiv 2006.04647): slogdet of c c^T + (1 - c) (1 - c)^T over the codes c of all ReLUs.
- grad_norm (arXiv 2101.08134): sum of the gradients' norms over the weights of convolutions and linear layers.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from torch_ops import compute

IMAGES = 16


def numbers(count, offset):
    """float32 [count] in [-1, 1): hashes of offset, offset + 1, ..."""
    n = torch.arange(offset, offset + count, dtype=torch.int64)
    u = (n * 2654435761) % 2**32
    u = u ^ (u >> 16)
    u = (u * 2246822519) % 2**32
    return (u >> 8).double() / 2**23 - 1


def weights(network):
    values = []
    for param in network["params"]:
        shape = param["shape"]
        value = numbers(torch.Size(shape).numel(), param["offset"]).view(shape)
        if len(shape) > 1:
            value = value * (6 / torch.Size(shape[1:]).numel()) ** 0.5
        else:
            value = 0.5 * value + (1 if param["name"].endswith("weight") else 0)
        values.append(value.float().double())
    return values


def weighted(network):
    return sorted({op["weight"] for op in network["ops"] if op["kind"] in ("conv", "linear")})


def run(network, params, images, linear=False, rectified=None):
    skipped = ("batch_norm", "layer_norm", "relu", "gelu", "hard_swish", "excite", "dropout")
    values = [images]
    for op in network["ops"][1:]:
        x = [values[i] for i in op["inputs"]]
        if linear and op["kind"] in skipped:
            values.append(x[0])
        elif linear and op["kind"] == "attention":
            values.append(x[0].chunk(3, dim=1)[2])
        else:
            values.append(compute(op, params, x))
        if rectified is not None and op["kind"] == "relu":
            rectified.append((values[-1] > 0).flatten(1).double())
    return values[-1].flatten(1)


def scores(network):
    _, height, width = network["ops"][0]["shape"]
    params = weights(network)
    flowing = [value.abs().requires_grad_() for value in params]
    run(network, flowing, torch.ones(1, 3, height, width, dtype=torch.float64), linear=True).sum().backward()
    flow = sum((flowing[i] * flowing[i].grad).abs().sum() for i in weighted(network) if flowing[i].grad is not None)

    images = numbers(IMAGES * 3 * height * width, 10**9).view(IMAGES, 3, height, width)
    learned = [value.clone().requires_grad_() for value in params]
    rectified = []
    logits = run(network, learned, images, rectified=rectified)
    F.cross_entropy(logits, torch.arange(IMAGES) % logits.shape[1]).backward()
    norm = sum(learned[i].grad.norm() for i in weighted(network))

    codes = torch.cat(rectified, 1) if rectified else torch.zeros(IMAGES, 0, dtype=torch.float64)
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    naswot = torch.linalg.slogdet(kernel).logabsdet
    return {
        "synflow": flow.log().item(),
        "naswot": naswot.item() if naswot.isfinite() else None,
        "grad_norm": norm.item(),
    }


def main(folder, output):
    torch.set_num_threads(1)
    result = {}
    for path in sorted(Path(folder).glob("*.json")):
        result[path.stem.replace("_", "/", 1)] = scores(json.loads(path.read_text()))
    Path(output).write_text(json.dumps({"torch": torch.__version__, "networks": result}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
