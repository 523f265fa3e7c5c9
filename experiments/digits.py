"""Writes the handwritten digits that come with scikit-learn (1,797 images of 8 x 8 pixels; E. Alpaydin and C. Kaynak,
UCI machine learning repository, CC BY 4.0) as an image folder: train/CLASS/*.png and test/CLASS/*.png, 32 x 32 pixels.

    python3 experiments/digits.py FOLDER        (needs scikit-learn and Pillow)
"""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

TRAINED_ON = 1437  # Four fifths, in the set's own order: the writers of the rest are others.

folder = Path(sys.argv[1])
digits = load_digits()
for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    part = "train" if number < TRAINED_ON else "test"
    path = folder / part / str(label) / f"{number:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((pixels * 255 / 16).round().astype("uint8"))
    image.resize((32, 32), Image.Resampling.BICUBIC).save(path)
