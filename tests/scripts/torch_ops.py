"""Writes tests/fixtures/torch_ops.json and torch_ops.safetensors: every op kind of the network IR, computed by PyTorch.

Each case is a small network in the IR's JSON form: input -> 1x1 convolution -> op(s) under test -> flatten -> linear.
Images and first weights are multiples of 1/2, so that ReLU meets exact zeros and max pooling meets ties. All in float64.
Tensors: NAME|params, NAME|images, NAME|labels, NAME|logits, NAME|loss, NAME|grad (of the loss by params).

Usage: python torch_ops.py OUTPUT_FOLDER
"""

import json
import struct
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

N, H, W, CLASSES = 3, 7, 6, 4
torch.manual_seed(20)
torch.set_num_threads(1)


class Builder:
    """A network under construction, with its parameter values."""

    def __init__(self, channels):
        self.ops, self.params, self.values = [], [], []
        self.ops.append({"kind": "input", "inputs": [], "shape": [3, H, W]})
        weight = torch.randint(-1, 2, (channels, 3, 1, 1), dtype=torch.float64) / 2
        self.head = self.conv(0, weight)

    def param(self, value):
        offset = sum(v.numel() for v in self.values)
        self.params.append({"name": f"p{len(self.params)}", "shape": list(value.shape), "offset": offset})
        self.values.append(value)
        return len(self.params) - 1

    def new(self, *shape):
        return self.param(torch.randn(*shape, dtype=torch.float64))

    def add(self, kind, *inputs, **fields):
        op = {"kind": kind, **fields, "inputs": list(inputs)}
        images = torch.zeros(2, 3, H, W, dtype=torch.float64)
        shape = list(evaluate(self.ops + [op], self.values, images).shape[1:])
        self.ops.append({**op, "shape": shape})
        return len(self.ops) - 1

    def conv(self, x, weight, stride=(1, 1), padding=(0, 0), dilation=1, groups=1):
        index = self.param(weight) if torch.is_tensor(weight) else self.new(*weight)
        return self.add("conv", x, weight=index, stride=list(stride), padding=list(padding), dilation=dilation, groups=groups)

    def channels(self, x):
        return self.ops[x]["shape"][0]

    def norm(self, kind, x):
        c = self.channels(x)
        return self.add(kind, x, weight=self.new(c), bias=self.new(c))

    def linear(self, x, out, bias=True):
        return self.add("linear", x, weight=self.new(out, self.channels(x)), bias=self.new(out) if bias else None)

    def finish(self, x):
        self.linear(self.add("flatten", x), CLASSES)
        return {"ops": self.ops, "params": self.params, "pruned": [], "n_cells": 0}


def attention(x, heads, width):
    n, _, h, w = x.shape
    q, k, v = x.reshape(n, 3, heads, width, h * w).permute(1, 0, 2, 4, 3)
    mixed = F.scaled_dot_product_attention(q, k, v)
    return mixed.permute(0, 1, 3, 2).reshape(n, heads * width, h, w)


def compute(op, params, x):
    kind = op["kind"]
    p = lambda field: None if op.get(field) is None else params[op[field]]
    if kind == "conv":
        return F.conv2d(x[0], p("weight"), None, op["stride"], op["padding"], op["dilation"], op["groups"])
    if kind == "linear":
        return F.linear(x[0].permute(0, 2, 3, 1), p("weight"), p("bias")).permute(0, 3, 1, 2)
    if kind == "batch_norm":
        return F.batch_norm(x[0], None, None, p("weight"), p("bias"), training=True, eps=1e-5)
    if kind == "layer_norm":
        c = x[0].shape[1]
        return F.layer_norm(x[0].permute(0, 2, 3, 1), (c,), p("weight"), p("bias"), 1e-5).permute(0, 3, 1, 2)
    if kind == "max_pool":
        return F.max_pool2d(x[0], op["kernel"], op["stride"], op["padding"])
    if kind == "avg_pool":
        return F.avg_pool2d(x[0], op["kernel"], op["stride"], op["padding"], count_include_pad=False)
    if kind == "attention":
        return attention(x[0], op["heads"], op["head_dim"])
    if kind == "subsample":
        return x[0][:, :, :: op["stride"], :: op["stride"]]
    if kind == "pos_enc":
        return x[0] + p("weight")
    return {
        "relu": lambda: F.relu(x[0]),
        "gelu": lambda: F.gelu(x[0]),
        "hard_swish": lambda: F.hardswish(x[0]),
        "global_avg_pool": lambda: F.adaptive_avg_pool2d(x[0], 1),
        "squeeze_mean": lambda: F.adaptive_avg_pool2d(x[0], 1),
        "excite": lambda: x[0] * x[1],
        "add": lambda: x[0] + x[1],
        "concat": lambda: torch.cat(x, 1),
        "zeros": lambda: torch.zeros_like(x[0]),
        "crop": lambda: x[0][:, :, 1:, 1:],
        "flatten": lambda: x[0].flatten(1)[:, :, None, None],
        "dropout": lambda: x[0],
    }[kind]()


def evaluate(ops, params, images):
    values = [images]
    for op in ops[1:]:
        values.append(compute(op, params, [values[i] for i in op["inputs"]]))
    return values[-1]


def cases():
    def case(name, channels, body):
        builder = Builder(channels)
        return name, builder, builder.finish(body(builder, builder.head))

    conv = lambda *args, **kwargs: lambda b, x: b.conv(x, *args, **kwargs)
    op = lambda kind, **fields: lambda b, x: b.add(kind, x, **fields)
    yield case("conv_1x1", 4, conv((5, 4, 1, 1)))
    yield case("conv_1x1_stride2", 4, conv((5, 4, 1, 1), stride=(2, 2)))
    yield case("conv_3x3", 4, conv((5, 4, 3, 3), padding=(1, 1)))
    yield case("conv_3x3_stride2", 4, conv((5, 4, 3, 3), stride=(2, 2), padding=(1, 1)))
    yield case("conv_3x3_stride3", 4, conv((5, 4, 3, 3), stride=(3, 3), padding=(1, 1)))
    yield case("conv_5x5", 3, conv((2, 3, 5, 5), padding=(2, 2)))
    yield case("conv_5x5_stride4", 3, conv((2, 3, 5, 5), stride=(4, 4), padding=(2, 2)))
    yield case("conv_7x7", 2, conv((3, 2, 7, 7), padding=(3, 3)))
    yield case("conv_1x7_stride2", 3, conv((4, 3, 1, 7), stride=(1, 2), padding=(0, 3)))
    yield case("conv_7x1_stride2", 3, conv((4, 3, 7, 1), stride=(2, 1), padding=(3, 0)))
    yield case("conv_4x4_even_kernel", 3, conv((4, 3, 4, 4), stride=(2, 2), padding=(1, 1)))
    yield case("conv_dilated", 3, conv((4, 3, 3, 3), padding=(2, 2), dilation=2))
    yield case("conv_groups", 4, conv((6, 2, 3, 3), padding=(1, 1), groups=2))
    yield case("depthwise_3x3", 4, conv((4, 1, 3, 3), padding=(1, 1), groups=4))
    yield case("depthwise_5x5_stride2", 4, conv((4, 1, 5, 5), stride=(2, 2), padding=(2, 2), groups=4))
    yield case("depthwise_multiplier", 4, conv((8, 1, 3, 3), padding=(1, 1), groups=4))
    yield case("depthwise_dilated_3x3", 4, conv((4, 1, 3, 3), padding=(2, 2), dilation=2, groups=4))
    yield case("depthwise_dilated_5x5_stride2", 4, conv((4, 1, 5, 5), stride=(2, 2), padding=(4, 4), dilation=2, groups=4))
    yield case("linear", 4, lambda b, x: b.linear(x, 5))
    yield case("linear_without_bias", 4, lambda b, x: b.linear(x, 5, bias=False))
    yield case("batch_norm", 4, lambda b, x: b.norm("batch_norm", x))
    yield case("layer_norm", 6, lambda b, x: b.norm("layer_norm", x))
    for kind in ("relu", "gelu", "hard_swish"):
        yield case(kind, 4, op(kind))
    yield case("hard_swish_wide", 4, lambda b, x: b.add("hard_swish", b.conv(x, (6, 4, 1, 1))))
    for kind in ("max_pool", "avg_pool"):
        yield case(f"{kind}_3", 4, op(kind, kernel=3, stride=1, padding=1))
        yield case(f"{kind}_3_stride2", 4, op(kind, kernel=3, stride=2, padding=1))
        yield case(f"{kind}_2_stride2", 4, op(kind, kernel=2, stride=2, padding=0))
    yield case("max_pool_of_relu", 4, lambda b, x: b.add("max_pool", b.add("relu", x), kernel=3, stride=1, padding=1))
    yield case("global_avg_pool", 4, op("global_avg_pool"))
    yield case("squeeze_excite", 4, lambda b, x: b.add("excite", x, b.add("hard_swish", b.linear(b.add("squeeze_mean", x), 4))))
    yield case("attention", 6, lambda b, x: b.add("attention", b.linear(x, 24, bias=False), heads=2, head_dim=4))
    yield case("pos_enc", 4, lambda b, x: b.add("pos_enc", x, weight=b.new(1, 4, H, W)))
    yield case("add", 4, lambda b, x: b.add("add", x, b.conv(x, (4, 4, 1, 1))))
    yield case("add_to_itself", 4, lambda b, x: b.add("add", x, x))
    yield case("concat", 4, lambda b, x: b.add("concat", x, b.conv(x, (2, 4, 1, 1)), x))
    yield case("zeros", 4, lambda b, x: b.add("concat", b.add("zeros", x), x))
    yield case("subsample", 4, op("subsample", stride=2))
    yield case("crop", 4, op("crop"))
    yield case("dropout", 4, op("dropout", p=0.5))


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().numpy().tobytes()
        dtype = {torch.float64: "F64", torch.uint8: "U8"}[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    folder = Path(sys.argv[1])
    networks, tensors = {}, {}
    for name, builder, network in cases():
        params = [value.requires_grad_() for value in builder.values]
        images = torch.randint(-2, 3, (N, 3, H, W), dtype=torch.float64) / 2
        labels = torch.randint(0, CLASSES, (N,))
        logits = evaluate(network["ops"], params, images).flatten(1)
        loss = F.cross_entropy(logits, labels)
        grads = torch.autograd.grad(loss, params)
        networks[name] = network
        tensors |= {
            f"{name}|params": torch.cat([p.flatten() for p in params]),
            f"{name}|images": images,
            f"{name}|labels": labels.to(torch.uint8),
            f"{name}|logits": logits,
            f"{name}|loss": loss.reshape(1),
            f"{name}|grad": torch.cat([g.flatten() for g in grads]),
        }
    head = json.dumps({"torch": torch.__version__, "script": "tests/scripts/torch_ops.py"})
    body = ",\n".join(f"{json.dumps(name)}: {json.dumps(network)}" for name, network in networks.items())
    (folder / "torch_ops.json").write_text(f'{{"origin": {head},\n"networks": {{\n{body}\n}}}}\n')
    write_safetensors(folder / "torch_ops.safetensors", tensors)


if __name__ == "__main__":
    main()
