"""Confused digits that other code trained on, repaired from the command line, and measured by that code.

    python benchmarks/digits_confusion.py FOLDER [METHOD …]

Plain torch, NumPy and Pillow write the embedded digits as PNG files, half of the 3 and the 8 in each other's folder,
train a small network on them, and list a tenth of those. ``cutk unlearn`` is run with each method by itself. Its
verdict is set beside what plain torch says of the weights on test images that were neither trained on nor given for
validation. Committed figures: results/resnet18/README.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

HERE = Path(__file__).resolve().parent
PAIR, FOUND, STEPS, MEAN, STD = (3, 8), 0.1, 300, 0.3, 0.37
COMMON = (
    *("--model", f"{HERE / 'digits_confusion.py'}:network", "--weights", "model.pt"),
    *("--data", "folder:photos", "--validation", "folder:clean", "--bad", "bad.txt", "--force"),
    *("--channels", "grey", "--mean", str(MEAN), "--std", str(STD)),
    *("--recipe", f"steps={STEPS}", "batch_size=128", "lr=0.05", "crop_padding=0", "flip=false"),
)
TRIES = {
    "seal": (),
    "seal:retrain": (),
    "scrub": ("-o", "scrub.steps=150", "-o", "scrub.forget_steps=60", "-o", "scrub.distillation_weight=0.05,0.5,5"),
    "ssd": ("-o", "ssd.selection_weight=1,10,50,100,1000"),
    "relabel": ("-o", "relabel.steps=150"),
}


def network() -> nn.Module:
    """Return the network, untrained."""

    def block(channels_in: int, channels_out: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]

    layers = [*block(1, 32), *block(32, 64), nn.MaxPool2d(2), *block(64, 128), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels, uint8 [N, 1, 8, 8], and labels."""
    with np.load(HERE.parent / "plugins" / "cutk_builtin" / "datasets" / "digits.npz") as file:
        pixels = torch.from_numpy(np.rint(file["images"] * (255 / 16)).astype(np.uint8))[:, None]
        return pixels, torch.from_numpy(file["labels"].astype(np.int64))


def scaled(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels as the network takes them."""
    return (pixels.float() / 255 - MEAN) / STD


def train(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Return a network that has learnt these labels."""
    torch.manual_seed(0)
    net = network()
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.2, total_iters=STEPS)
    for _ in range(STEPS):
        which = torch.randint(len(y), (128,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(scaled(x[which])), y[which]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def said(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> str:
    """Return the accuracies on the pair and on the other classes."""
    right, pair = net.eval()(scaled(x)).argmax(1) == y, (y == PAIR[0]) | (y == PAIR[1])
    return f"pair {float(right[pair].float().mean()):.3f}, others {float(right[~pair].float().mean()):.3f}"


def write(folder: Path, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    """Write images into a folder for each label, and return their names."""
    names = [f"{label}/{i:05}.png" for i, label in enumerate(y.tolist())]
    for name, pixels in zip(names, x, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(folder / name)
    return names


def main() -> None:
    """Make everything, repair it with each method, and measure."""
    folder, tries = Path(sys.argv[1]), sys.argv[2:] or list(TRIES)
    x, truth = digits()
    fifth = torch.arange(len(truth)) % 5 == 4
    test, testing = x[fifth], truth[fifth]
    x, truth = x[~fifth], truth[~fifth]
    of_pair = ((truth == PAIR[0]) | (truth == PAIR[1])).nonzero().flatten()
    wrong = of_pair[torch.randperm(len(of_pair), generator=torch.Generator().manual_seed(1))[: len(of_pair) // 2]]
    y = truth.clone()
    y[wrong] = sum(PAIR) - y[wrong]
    names = write(folder / "photos", x, y)
    write(folder / "clean", test[::2], testing[::2])
    bad = wrong[: round(FOUND * len(wrong))]
    (folder / "bad.txt").write_text("".join(f"{names[i]}\n" for i in bad.tolist()))
    net = train(x, y)
    torch.save(net.state_dict(), folder / "model.pt")
    good = torch.ones(len(y), dtype=torch.bool)
    good[wrong] = False
    print(f"{len(wrong)} confused, {len(bad)} known, {len(testing[1::2])} measured on")
    print("original:", said(net, test[1::2], testing[1::2]))
    print("trained without them:", said(train(x[good], y[good]), test[1::2], testing[1::2]), flush=True)
    for name in tries:
        out = name.replace(":", "-")
        command = (sys.executable, "-m", "cutk", "unlearn", *COMMON, "-u", name, *TRIES[name], "--out", out)
        if subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 2:
            sys.exit(2)
        print(f"{name}: {json.loads((folder / out / 'report.json').read_text())['verdict']}")
        if (folder / out / "model.pt").is_file():
            net.load_state_dict(torch.load(folder / out / "model.pt", weights_only=True))
            print(f"  by plain torch: {said(net, test[1::2], testing[1::2])}", flush=True)


if __name__ == "__main__":
    main()
