"""What suits data of the user's own, of which cutk knows no more than their form."""

from __future__ import annotations

from typing import Any

# No augmentation: whether a mirrored image is still of its class, cutk can't know.
RECIPE: dict[str, Any] = {"steps": 1000, "batch_size": 128, "crop_padding": 0, "flip": False}
SUGGESTS: dict[str, dict[str, Any]] = {
    # A quarter of the training, as the paper's 1,000 steps are of its 4,000.
    "cf": {"steps": 250},
    "badt": {"steps": 250},
    "neggrad-plus": {"steps": 250},
    "relabel": {"steps": 250},
    "scrub": {"steps": 250, "forget_steps": 50},
}
