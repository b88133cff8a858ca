"""What a user hands over, as the house's own parts take it: a model, samples, and which of them are bad."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Subset

from cutk.data.batches import Augmentation, ResidentTrainSet, TrainSet
from cutk.data.given import Given
from cutk.data.samples import Normalisation, Samples, form_of, told
from cutk.data.streamed import StreamedTrainSet
from cutk.errors import CellError, CutkError, UsageError, one_line

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

    Dataset = SupportsLenAndGetItem[Any]

__all__ = [
    "Adapted",
    "bad_indices",
    "channels_in_order",
    "class_counts",
    "given_by",
    "normalisation_by",
    "own_classes",
    "reinitialised",
    "require_logits",
    "set_of",
    "shape_of",
]

# Labels that a dataset lists are compared with those that it gives with so many of its samples, and of its bad ones:
# who poisons a dataset by a subclass may leave the clean labels listed.
_COMPARED = 16
Collate = Callable[[list[Any]], Any]


class Adapted(nn.Module):
    """A model that takes samples as training sets hold them, and returns logits.

    ``shape`` is what samples of floating-point numbers have, which are held as vectors: [C, H, W], say. Of an output
    that holds more than logits, these are taken.
    """

    def __init__(self, inner: nn.Module, shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.inner, self.shape = inner, shape

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, …]`` to logits ``[B, classes]``."""
        out = self.inner(x if self.shape is None else x.reshape(len(x), *self.shape))
        if isinstance(out, Tensor):
            return out
        found: Any = getattr(out, "logits", None)
        if found is None and isinstance(out, tuple | list) and out:
            found = out[0]
        if found is None and isinstance(out, Mapping):
            found = out.get("logits")
        if not isinstance(found, Tensor):
            raise UsageError(f"The model: expected logits [B, classes], got {type(out).__name__} without any.")
        return found


def reinitialised(model: nn.Module) -> nn.Module:
    """Return the same architecture with new weights, drawn from torch's global state.

    Raises:
        CellError: if a module has parameters and no ``reset_parameters`` to draw them anew.
    """
    fresh = copy.deepcopy(model)
    for name, module in fresh.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif any(True for _ in module.parameters(recurse=False)):
            raise CellError(
                f"Training from scratch needs new weights, and '{name.removeprefix('inner.')}' "
                f"({type(module).__name__}) has no reset_parameters(). Give build=, a function that makes the model."
            )
    return fresh


class _Plain:
    """A dataset of which item ``i`` is a sample alone, whatever the user's one wraps it in."""

    def __init__(self, dataset: Dataset, collate: Collate | None) -> None:
        self.dataset, self.collate = dataset, collate
        self.shape: tuple[int, ...] | None = None  # of samples that are held as vectors
        self.classes: tuple[str, ...] | None = None  # by name, where the dataset says so

    def __len__(self) -> int:
        return len(self.dataset)

    def pair(self, index: int) -> tuple[Any, Any]:
        """Return a sample and its label, None if it comes without one."""
        item = self.dataset[index]
        if self.collate is not None:
            batch = self.collate([item])
            if not isinstance(batch, tuple | list) or len(batch) < 2:
                raise UsageError(f"collate: expected (x, labels) of a batch, got {type(batch).__name__}.")
            return batch[0][0], batch[1][0]
        if isinstance(item, Mapping):
            raise UsageError(
                f"The dataset gives dictionaries ({', '.join(map(str, item))}): give collate=, a function from a list "
                "of them to (x, labels)."
            )
        return (item[0], item[1]) if isinstance(item, tuple | list) and len(item) > 1 else (item, None)

    def __getitem__(self, index: int) -> Any:
        x = self.pair(index)[0]
        if isinstance(x, Image.Image):
            return x
        x = torch.as_tensor(x)
        if x.is_floating_point():
            return x.float() if self.shape is None else x.float().flatten()
        return x if x.dtype == torch.uint8 else x.long()


def whole(labels: Tensor) -> Tensor:
    """Return labels as int64 ``[n]``.

    Raises:
        ValueError: if one isn't a whole number.
    """
    found = labels.long().flatten()
    if labels.is_floating_point() and not torch.equal(found.to(labels.dtype), labels.flatten()):
        raise ValueError("expected classes as whole numbers, got fractions")
    return found


def _label(plain: _Plain, index: int) -> int:
    label = plain.pair(index)[1]
    return int(whole(torch.as_tensor(label))) if isinstance(label, Tensor | float) else int(label)


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """Return at most so many, from the first to the last."""
    if len(indices) <= most:
        return list(indices)
    return [indices[i * (len(indices) - 1) // (most - 1)] for i in range(most)]


def _labels_of(dataset: Dataset, plain: _Plain, bad: Sequence[int] = ()) -> Tensor:
    """Return the labels as given: those that the dataset lists, if they are those of its samples, or as it is read."""
    listed: Any = None
    if isinstance(dataset, Subset):
        inner = _labels_of(dataset.dataset, _Plain(dataset.dataset, plain.collate))  # type: ignore[arg-type]
        listed = inner[torch.as_tensor(list(dataset.indices))]
    elif plain.collate is None and len(getattr(dataset, "tensors", ())) > 1:
        listed = dataset.tensors[1]  # type: ignore[attr-defined]
    else:
        listed = next((v for n in ("targets", "labels") if (v := getattr(dataset, n, None)) is not None), None)
    try:
        found = whole(torch.as_tensor(listed))
        some = [*_spread(range(len(dataset)), _COMPARED), *_spread(bad, 16 * _COMPARED)]
        if len(found) == len(dataset) and found[some].tolist() == [_label(plain, i) for i in some]:
            return found
    except (TypeError, ValueError, RuntimeError, OSError):
        pass  # told below
    read = []
    for index in range(len(dataset)):
        try:
            read.append(_label(plain, index))
        except CutkError:
            raise
        except Exception as error:  # whatever the dataset's own code raises
            raise UsageError(
                f"Sample {index}: expected a tuple of a sample and its label, a whole number ({one_line(error)}). "
                "Give labels=, or collate=."
            ) from error
    return torch.tensor(read, dtype=torch.int64)


def _names_of(dataset: object) -> tuple[str, ...] | None:
    """Return the classes that a dataset names as torchvision's do, also one of which this is a part."""
    found = getattr(dataset, "classes", None)
    if isinstance(found, list | tuple):
        return tuple(map(str, found))
    return _names_of(dataset.dataset) if found is None and isinstance(dataset, Subset) else None


def own_classes(given: Given) -> tuple[str, ...] | None:
    """Return the classes that samples name themselves, in the order of their labels as they came."""
    return given.content.classes if isinstance(given.content, _Plain) else given.classes


def given_by(
    dataset: object,
    labels: Tensor | None = None,
    collate: Collate | None = None,
    what: str = "dataset",
    bad: object = None,
) -> Given:
    """Return samples in whatever form a caller of ``cutk.unlearn`` holds them, ``what`` they are in errors.

    ``bad``, as ``bad_indices`` takes it, says at which samples listed labels are compared with the given ones.

    Raises:
        UsageError: if it is no map-style dataset, or labels don't fit.
    """
    if isinstance(dataset, Given):
        return dataset
    if isinstance(dataset, Samples):
        return Given.of_samples(dataset)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UsageError(
            f"{what}: expected a map-style torch Dataset, with __len__ and __getitem__, got {type(dataset).__name__}."
        )
    found: Any = dataset
    if len(found) == 0:
        raise UsageError(f"{what}: expected samples, got none.")
    plain = _Plain(found, collate)
    if labels is None:
        given = _labels_of(found, plain, [] if bad is None else bad_indices(bad, len(found)).tolist())
    else:
        try:
            given = whole(torch.as_tensor(labels))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"labels: expected a whole number for each sample ({one_line(error)}).") from None
    count = int(given.max()) + 1
    names = _names_of(found)
    if names is not None and len(names) >= count and len(set(names)) == len(names):
        plain.classes = names
    try:
        return Given(plain, given, plain.classes or tuple(map(str, range(count))))
    except ValueError as error:
        raise UsageError(f"{what}: {one_line(error).removeprefix('ValueError: ')}") from None


def shape_of(given: Given) -> tuple[int, ...] | None:
    """Return the shape of floating-point samples that are no plain features, and hold them as vectors from now on."""
    content = given.content
    if not isinstance(content, _Plain):
        return None
    if content.shape is not None:
        return content.shape
    first = content[0]
    if isinstance(first, Image.Image) or not first.is_floating_point() or first.ndim == 1:
        return None
    content.shape = tuple(first.shape)
    return content.shape


class _Reversed:
    """Images whose channels come in the other order."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return torch.flip(torch.as_tensor(self.dataset[index]), (0,))


def channels_in_order(samples: Samples, bgr: bool) -> Samples:
    """Return samples whose images, with ``bgr``, have their channels the other way round; others have none."""
    return samples.changed(x=samples.x.flip(1)) if bgr and samples.form == "images" else samples


def set_of(
    given: Given,
    normalisation: Normalisation | None,
    augmentation: Augmentation | None,
    device: torch.device,
    *,
    num_classes: int,
    size: tuple[int, int] | None = None,
    bgr: bool = False,
    workers: int = 0,
) -> TrainSet:
    """Return samples as they reach a model: those that lie in memory on the device, others read when they are due.

    Without a normalisation images are scaled to 0 … 1, and features stay as they are.
    """
    content = given.content
    if isinstance(content, Samples):
        samples = channels_in_order(content.changed(labels=given.labels.clone()), bgr)
        plain = normalisation or given.normalisation or _plain(samples.form, samples.shape[0])
        return ResidentTrainSet(samples, plain, augmentation, device=device)
    source: Any = _Reversed(content) if bgr else content
    first = _first_of(source)
    return StreamedTrainSet(
        source,
        given.labels.clone(),
        num_classes,
        normalisation or given.normalisation or _plain(*first),
        augmentation,
        size=size,
        num_workers=workers,
        device=device,
    )


def _first_of(source: Dataset) -> tuple[str, int]:
    """Return the form of a dataset's samples, and their channels or features."""
    try:
        first = source[0]
    except CutkError:
        raise
    except Exception as error:  # whatever the dataset's own code raises
        raise UsageError(f"Sample 0 can't be read: {one_line(error)}.") from error
    if isinstance(first, Image.Image):
        return "images", 1 if first.mode in ("1", "L") else 3
    x = torch.as_tensor(first)
    return form_of(x[None]) or "tokens", x.shape[0] if x.ndim else 0


def normalisation_by(given: Given, mean: object, std: object) -> Normalisation | None:
    """Return a normalisation as a caller gives it: numbers for each channel or feature, or one for all; None if none.

    Raises:
        UsageError: if they are something else, or too many or too few.
    """
    if mean is None and std is None:
        return None
    content = given.content
    form, many = (content.form, content.shape[0]) if isinstance(content, Samples) else _first_of(content)
    if form == "tokens":
        raise UsageError("mean, std: these samples are tokens, which aren't normalised: leave both out.")
    numbers = []
    for name, value, otherwise in (("mean", mean, 0.0), ("std", std, 1.0)):
        try:
            found = torch.as_tensor(otherwise if value is None else value, dtype=torch.float64).flatten().tolist()
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"{name}: expected numbers, got {value!r:.80}.") from None
        if len(found) not in (1, many):
            each = "channels" if form == "images" else "features"
            raise UsageError(f"{name}: expected one number, or one for each of {many} {each}, got {len(found)}.")
        if not all(map(math.isfinite, found)) or (name == "std" and min(found) <= 0):
            raise UsageError(f"{name}: expected numbers{' above 0' if name == 'std' else ''}, got {value!r:.80}.")
        numbers.append(tuple(found * (many if len(found) == 1 else 1)))
    return Normalisation(*numbers)


def _plain(form: str, channels: int) -> Normalisation:
    many = 0 if form == "tokens" else channels
    return Normalisation((0.0,) * many, (1.0,) * many)


def bad_indices(bad: object, count: int) -> Tensor:
    """Return which samples are bad, int64 ``[n]``, sorted, from indices or from bool ``[N]``.

    Raises:
        UsageError: if one is out of range or there twice, or none or all samples are bad.
    """
    wanted = f"bad: expected indices of samples, or true and false for each of {count}"
    if isinstance(bad, Iterable) and not isinstance(bad, Tensor | str | os.PathLike):
        bad = list(bad)
    named = [one for one in (bad if isinstance(bad, list) else [bad]) if isinstance(one, str | os.PathLike)]
    if named:
        raise UsageError(
            f"{wanted}, got names ({_few((repr(os.fspath(one)) for one in named), 3)}). Look up where these samples "
            "stand in the dataset; cutk unlearn --bad FILE takes names."
        )
    try:
        given = torch.as_tensor(bad)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{wanted}, got {bad!r:.80}.") from None
    if given.dtype == torch.bool and given.shape == (count,):
        given = given.nonzero().flatten()
    if given.numel() == 0 and given.ndim == 1:
        raise UsageError("bad: expected at least one bad sample, got none.")
    if given.ndim != 1 or given.is_floating_point() or given.dtype == torch.bool:
        raise UsageError(f"{wanted}, got {told(given)}.")
    found: Tensor
    found, counts = torch.unique(given.long().cpu(), return_counts=True)
    if not 0 <= int(found[0]) <= int(found[-1]) < count:
        wrong = [str(i) for i in found.tolist() if not 0 <= i < count]
        raise UsageError(f"bad: expected indices from 0 to {count - 1}, got {_few(wrong)}.")
    if (counts > 1).any():
        raise UsageError(f"bad: expected each sample once, got {_few(map(str, found[counts > 1].tolist()))} twice.")
    if len(found) == count:
        raise UsageError(f"bad: all {count} samples are said to be bad, and nothing is left to know. Train anew.")
    return found


def _few(texts: Iterable[str], most: int = 10) -> str:
    listed = list(texts)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def class_counts(outputs: int, classes: Sequence[str]) -> str:
    """Return what to say of a model that tells another number of classes apart than the data have."""
    named = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
    said = (
        f"The model tells {outputs} classes apart, and the data have {len(classes)} ({named}): expected as many of both"
    )
    if outputs < len(classes):
        return f"{said}."
    listed = ",".join((*classes[:8], "…"))
    return f"{said}. Where the data lack some, name all in the order of the model's outputs: --classes {listed}"


def _takes_grey(model: nn.Module, train: TrainSet, x: Tensor) -> bool:
    """Say whether a model that refuses coloured images takes grey ones."""
    if train.form != "images" or train.shape[0] != 3:
        return False
    try:
        with torch.inference_mode():
            model(x[:, :1])
    except Exception:  # whatever the user's own module raises
        return False
    return True


def require_logits(model: nn.Module, train: TrainSet) -> int:
    """Return how many classes a model tells apart; a ``UsageError`` says that it doesn't take the samples."""
    batch = next(train.batches(torch.arange(min(2, len(train)))))
    try:
        with torch.inference_mode():
            logits = model.eval()(batch.x)
    except CutkError:
        raise
    except Exception as error:  # whatever the user's own module raises
        advice = " It takes grey images: give --channels grey." if _takes_grey(model, train, batch.x) else ""
        raise UsageError(
            f"The model can't take samples of the shape {list(train.shape)}: {one_line(error).rstrip('.')}.{advice}"
        ) from error
    if (
        not isinstance(logits, Tensor)
        or logits.ndim != 2
        or len(logits) != len(batch.x)
        or not logits.is_floating_point()
    ):
        came = told(logits) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"The model: expected logits float [{len(batch.x)}, classes], got {came}.")
    return int(logits.shape[1])


def measured_on(given: Given) -> Normalisation:
    """Return each channel's or feature's mean and deviation over all samples, read in parts."""
    if isinstance(given.content, Samples):
        return Normalisation.of(given.content)
    total, squares, count = torch.zeros(1), torch.zeros(1), 0
    for index in range(len(given)):
        x = torch.as_tensor(given.content[index])
        values = (x.double() / 255).flatten(1) if x.dtype == torch.uint8 else x.double()[:, None]
        total, squares, count = total + values.sum(1), squares + (values**2).sum(1), count + values.shape[1]
    mean = total / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    return Normalisation(tuple(mean.tolist()), tuple((std + (std == 0)).tolist()))
