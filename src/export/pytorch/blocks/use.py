def load(weights=WEIGHTS):
    """The network with its weights, ready for single images."""
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(weights), strict=True)
    return network.eval()


def prepare(path):
    """An image file as the network's input `[1, 3, H, W]`."""
    from PIL import Image

    image = Image.open(path).convert("L" if CHANNELS == 1 else "RGB")
    if image.size != (WIDTH, HEIGHT):
        image = image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.reshape(HEIGHT, WIDTH, CHANNELS).permute(2, 0, 1).expand(3, -1, -1) / 255
    rows, columns = INPUT[1] - HEIGHT, INPUT[2] - WIDTH
    top, left = rows // 2, columns // 2
    pixels = F.pad(pixels, (left, columns - left, top, rows - top))
    mean, sd = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, SD))
    return ((pixels - mean) / sd)[None]


def main():
    parser = argparse.ArgumentParser(description="Classifies image files.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    parser.add_argument("--weights", default=WEIGHTS, metavar="FILE", help=f"[default: {WEIGHTS.name}]")
    parser.add_argument("--top", type=int, default=1, metavar="N", help="classes to print [default: 1]")
    args = parser.parse_args()
    network = load(args.weights)
    for path in args.images:
        with torch.inference_mode():
            shares = network(prepare(path)).softmax(1)[0]
        best = shares.topk(min(args.top, len(CLASSES)))
        named = [f"{CLASSES[c]} {p:.1%}" for p, c in zip(best.values.tolist(), best.indices.tolist())]
        print(f"{path}: {', '.join(named)}")


if __name__ == "__main__":
    main()
