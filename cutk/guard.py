"""What belongs to the whole process, and has to be as it was before once somebody else's code has run.

A method that leaves threads, flags, hooks, default dtypes or patched functions behind would change the numbers of every
method after it. ``watched`` reads all of that before, names afterwards what differs, and puts it back.

Nothing here imports torch: plugins are imported under this guard too, and whoever needs no torch shouldn't wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import random
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from locale import LC_ALL, setlocale
from operator import attrgetter
from typing import Any, NamedTuple

__all__ = ["DRAWS", "STATES", "watched"]

_ABSENT: Any = object()


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except Exception:  # what a plugin left there needn't be comparable
        return False


class _State(NamedTuple):
    """One piece of global state: its name, the module it belongs to, how to read it and how to put it back."""

    name: str
    module: str
    read: Callable[[Any], Any]
    restore: Callable[[Any, Any], object]
    same: Callable[[Any, Any], bool] = _equal

    def now(self) -> Any:
        """Return it as it is, ``_ABSENT`` where its module isn't imported, or this version of it has no such thing."""
        try:
            return self.read(sys.modules[self.module])
        except Exception:
            return _ABSENT

    def differs(self, before: Any) -> bool:
        """Say whether it isn't what ``now`` returned."""
        return before is not _ABSENT and ((now := self.now()) is _ABSENT or not self.same(before, now))


def _switches(name: str, module: str, pairs: str) -> _State:
    """Return the state that a module reads and writes by pairs of functions, as far as this version has them.

    A pair is ``getter/setter``, or one word with ``{}`` where they have ``get`` and ``set``.
    """
    split = [(pair.format("get").split("/")[0], pair.format("set").split("/")[-1]) for pair in pairs.split()]

    def read(module: Any) -> dict[str, Any]:
        found = {}
        for getter, setter in split:
            with contextlib.suppress(AttributeError):
                found[setter] = attrgetter(getter)(module)() if attrgetter(setter)(module) else None
        return found

    def restore(module: Any, before: dict[str, Any]) -> None:
        for setter, value in before.items():
            attrgetter(setter)(module)(*(value if isinstance(value, tuple) else (value,)))

    return _State(name, module, read, restore)


# Torch's own.


def _read_modes(torch: Any) -> list[Any]:
    functions = [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return [functions, context, getattr(torch.utils._device, "CURRENT_DEVICE", None)]


def _restore_modes(torch: Any, before: Sequence[Any]) -> None:
    functions, torch._GLOBAL_DEVICE_CONTEXT.device_context, torch.utils._device.CURRENT_DEVICE = before
    for _ in range(torch._C._len_torch_function_stack()):
        torch._C._pop_torch_function_stack()
    for mode in functions:
        torch._C._push_on_torch_function_stack(mode)


def _read_dispatch(torch: Any) -> list[Any]:
    return [torch._C._get_dispatch_stack_at(i) for i in range(torch._C._len_torch_dispatch_stack())]


def _restore_dispatch(torch: Any, before: Sequence[Any]) -> None:
    while (now := _read_dispatch(torch)) and now != before[: len(now)]:
        now[-1].__exit__(None, None, None)
    for mode in before[len(now) :]:
        torch.utils._python_dispatch._push_mode(mode)


_HELD: list[Any] = []  # an inference mode ends when its guard is let go


def _restore_inference(torch: Any, before: bool) -> None:
    _HELD.append(torch._C._InferenceMode(before))
    _HELD[-1].__enter__()


def _read_saving(torch: Any) -> tuple[Any, Any]:
    saved = torch._C._autograd
    return saved._top_saved_tensors_default_hooks(True), saved._saved_tensors_hooks_get_disabled_error_message()


def _restore_saving(torch: Any, before: tuple[Any, Any]) -> None:
    saved, (hooks, refusal) = torch._C._autograd, before
    while (top := saved._top_saved_tensors_default_hooks(True)) is not None and top != hooks:
        saved._pop_saved_tensors_default_hooks()
    if hooks is not None and top is None:
        saved._push_saved_tensors_default_hooks(*hooks)
    saved._saved_tensors_hooks_enable() if refusal is None else saved._saved_tensors_hooks_disable(refusal)


def _read_autocast(torch: Any) -> tuple[dict[str, tuple[bool, Any]], bool, int]:
    found = {}
    for name in ("cpu", "cuda", "mps", "xpu"):
        with contextlib.suppress(Exception):  # a device that this version doesn't know
            found[name] = (torch.is_autocast_enabled(name), torch.get_autocast_dtype(name))
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return found, torch.is_autocast_cache_enabled(), depth


def _restore_autocast(torch: Any, before: tuple[dict[str, tuple[bool, Any]], bool, int]) -> None:
    for name, (enabled, dtype) in before[0].items():
        torch.set_autocast_enabled(name, enabled)
        torch.set_autocast_dtype(name, dtype)
    torch.set_autocast_cache_enabled(before[1])
    for _ in range(_read_autocast(torch)[2] - before[2]):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()  # at a greater depth, it kept weights as they were


# Where float32 is multiplied, and by which operation; what comes first decides for what has no word of its own.
_OPERATIONS = ("all", "matmul", "conv", "rnn")
_PLACES = [("generic", "all"), *((place, operation) for place in ("cuda", "mkldnn") for operation in _OPERATIONS)]


def _read_precision(torch: Any) -> dict[Any, Any]:
    """Return what float32 products are computed in, in the old words and in those of newer versions."""
    found: dict[Any, Any] = {}
    for name in ("float32_matmul_precision", "cublas_allow_tf32", "cudnn_allow_tf32", "onednn_allow_tf32"):
        with contextlib.suppress(Exception):  # where the new word contradicts the old one, which can't say it then
            found[name] = getattr(torch._C, f"_get_{name}")()
    if hasattr(torch._C, "_get_fp32_precision_getter"):
        found |= {place: torch._C._get_fp32_precision_getter(*place) for place in _PLACES}
    return found


def _restore_precision(torch: Any, before: dict[Any, Any]) -> None:
    for name, value in before.items():
        if isinstance(name, tuple):
            if torch._C._get_fp32_precision_getter(*name) != value:
                torch._C._set_fp32_precision_setter(*name, value)
        elif value is not None:
            getattr(torch._C, f"_set_{name}")(value)


def _read_hooks(module: Any) -> dict[str, Any]:
    hooks = {name: value for name, value in vars(module).items() if name.startswith("_global_") and not callable(value)}
    return {name: dict(value) if isinstance(value, dict) else value for name, value in hooks.items()}


def _restore_hooks(module: Any, before: dict[str, Any]) -> None:
    for name, value in before.items():
        there = getattr(module, name, None)
        if isinstance(value, dict) and isinstance(there, dict):  # others hold on to it
            there.clear()
            there.update(value)
        else:
            setattr(module, name, value)


# Chance.


def _read_chance(torch: Any) -> list[Any]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]


def _restore_chance(torch: Any, before: list[Any]) -> None:
    torch.set_rng_state(before[0])
    if before[1:]:
        torch.cuda.set_rng_state_all(before[1:])


def _same_chance(first: list[Any], second: list[Any]) -> bool:
    # A device that is used for the first time has a state that nobody used before.
    return all(bool((a == b).all()) for a, b in zip(first, second, strict=False))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items()}
    return value.tobytes() if hasattr(value, "tobytes") else value


# Python and the process.

_SIGNALS = tuple(signal.valid_signals())
_STREAMS = ("stdin", "stdout", "stderr", "displayhook", "excepthook")


def _read_signals(_: Any) -> dict[Any, Any]:
    alarm = hasattr(signal, "getitimer") and signal.getitimer(signal.ITIMER_REAL)[0] > 0
    return {**{number: signal.getsignal(number) for number in _SIGNALS}, "an alarm": alarm}


def _restore_signals(_: Any, before: dict[Any, Any]) -> None:
    if not before["an alarm"] and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    for number in _SIGNALS:
        if before[number] is not None and signal.getsignal(number) != before[number]:
            signal.signal(number, before[number])


def _restore_environment(_: Any, before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def _same_environment(before: dict[str, str], now: dict[str, str]) -> bool:
    # Torch sets some of its own when it is first asked to optimise.
    return before == {n: v for n, v in now.items() if n in before or not n.startswith(("TORCHINDUCTOR_", "TRITON_"))}


def _restore_filters(_: Any, before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]
    with warnings.catch_warnings():  # which has it noticed that they changed
        pass


def _same_filters(before: list[Any], now: list[Any]) -> bool:
    """Say whether none is new but of those that libraries add for warnings of their own when they are imported."""

    def general(action: str, message: Any, category: type[Warning], module: Any, *_: Any) -> bool:
        return action == "error" or not (message or module or category.__module__ != "builtins")

    return before == now or before == [f for f in now if f in before or general(*f)]


def _restore_path(_: Any, before: tuple[list[str], list[str]]) -> None:
    sys.path, content = before
    sys.path[:] = content


def _restore_streams(_: Any, before: list[Any]) -> None:
    for name, value in zip(_STREAMS, before, strict=True):
        setattr(sys, name, value)


def _read_log(_: Any) -> tuple[Any, ...]:
    root = logging.getLogger()
    return root.level, list(root.handlers), root.disabled, root.manager.disable


def _restore_log(_: Any, before: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    level, root.handlers[:], root.disabled, disabled = before
    root.setLevel(level)
    logging.disable(disabled)


_AUTOGRAD = (
    "is_grad_enabled/_C._set_grad_enabled _C._is_fwd_grad_enabled/_C._set_fwd_grad_enabled "
    "_C._is_multithreading_enabled/_C._set_multithreading_enabled is_anomaly_enabled/set_anomaly_enabled"
)
_DETERMINISTIC = "{}_deterministic_debug_mode _C._{}_deterministic_fill_uninitialized_memory"
_ONEDNN = "_C._{}_mkldnn_enabled _C._{}_mkldnn_deterministic _C._{}_nnpack_enabled"
_CUDNN = "_C._{}_cudnn_enabled _C._{}_cudnn_benchmark _C._{}_cudnn_deterministic _C._cuda_{}_cudnn_benchmark_limit"
_HALF = (
    "_C._{}_cpu_allow_fp16_reduced_precision_reduction _C._{}_cublas_allow_fp16_reduced_precision_reduction "
    "_C._{}_cublas_allow_bf16_reduced_precision_reduction _C._{}_cublas_allow_fp16_accumulation"
)
_ALGORITHMS = (
    "_C._get_flash_sdp_enabled/_C._set_sdp_use_flash _C._get_math_sdp_enabled/_C._set_sdp_use_math "
    "_C._get_mem_efficient_sdp_enabled/_C._set_sdp_use_mem_efficient "
    "_C._get_cudnn_sdp_enabled/_C._set_sdp_use_cudnn _C._{}_linalg_preferred_backend _C._{}_blas_preferred_backend "
    "_C._{}_qengine"
)

# In this order: what comes later is read and put back by functions that the earlier ones may have turned.
_STATES = (
    _State("the default device or another function mode of torch's", "torch", _read_modes, _restore_modes),
    _State("torch's dispatch modes", "torch", _read_dispatch, _restore_dispatch),
    _State("the inference mode", "torch", lambda t: t.is_inference_mode_enabled(), _restore_inference),
    _switches("the grad mode", "torch", _AUTOGRAD),
    _State("the hooks on tensors saved for backward", "torch", _read_saving, _restore_saving),
    _State("autocast", "torch", _read_autocast, _restore_autocast),
    _State("the hooks of all modules", "torch.nn.modules.module", _read_hooks, _restore_hooks),
    _State("the hooks of all optimisers", "torch.optim.optimizer", _read_hooks, _restore_hooks),
    _switches("torch's deterministic algorithms", "torch", _DETERMINISTIC),
    _switches("oneDNN's settings", "torch", _ONEDNN),
    _switches("cuDNN's settings", "torch", _CUDNN),
    _State("the precision of float32 products", "torch", _read_precision, _restore_precision),
    _switches("the precision of 16-bit products", "torch", _HALF),
    _switches("the choice of algorithms", "torch", _ALGORITHMS),
    _switches("the number of threads", "torch", "{}_num_threads"),
    _switches("the number of threads between operations", "torch", "{}_num_interop_threads"),
    _State(
        *("the treatment of denormal numbers", "torch"),
        lambda _: sum([5e-324, 5e-324]) == 0.0,
        lambda torch, before: torch.set_flush_denormal(before),
    ),
    _switches("the default dtype", "torch", "{}_default_dtype"),
    _State(
        *("the current CUDA device", "torch.cuda"),
        lambda cuda: cuda.current_device() if cuda.is_initialized() else _ABSENT,
        lambda cuda, before: cuda.set_device(before),
    ),
    _State("torch's random state", "torch", _read_chance, _restore_chance, _same_chance),
    _State(
        *("NumPy's random state", "numpy.random"),
        lambda numpy: numpy.get_state(legacy=False),
        lambda numpy, before: numpy.set_state(before),
        lambda first, second: _equal(_bare(first), _bare(second)),
    ),
    _State("Python's random state", "random", lambda _: random.getstate(), lambda _, before: random.setstate(before)),
    _State("NumPy's errors", "numpy", lambda numpy: numpy.geterr(), lambda numpy, before: numpy.seterr(**before)),
    _State("the filters of warnings", "warnings", lambda _: list(warnings.filters), _restore_filters, _same_filters),
    _State("the working folder", "os", lambda _: os.getcwd(), lambda _, before: os.chdir(before)),
    _State("the environment variables", "os", lambda _: dict(os.environ), _restore_environment, _same_environment),
    _State("the handling of signals", "signal", _read_signals, _restore_signals),
    _State("the locale", "locale", lambda _: setlocale(LC_ALL), lambda _, before: setlocale(LC_ALL, before)),
    _State("the path of imports", "sys", lambda _: (sys.path, list(sys.path)), _restore_path),
    _State("the standard streams", "sys", lambda _: [vars(sys)[name] for name in _STREAMS], _restore_streams),
    _State("the log", "logging", _read_log, _restore_log),
    _switches("the limit of recursion", "sys", "{}recursionlimit"),
    _State("the garbage collector", "gc", lambda _: gc.isenabled(), lambda _, on: gc.enable() if on else gc.disable()),
    _State(
        *("how processes are started", "multiprocessing"),
        lambda processes: processes.get_start_method(allow_none=True),
        lambda processes, before: processes.set_start_method(before, force=True),
    ),
)
STATES = tuple(state.name for state in _STATES)
# Those that change whenever somebody draws from them.
DRAWS = tuple(name for name in STATES if name.endswith("random state"))

# Functions that others call, and classes whose methods they do.

_MODULES = (
    *("builtins", "copy", "math", "os", "random", "time", "warnings", "numpy", "numpy.random"),
    *("torch", "torch._C", "torch._C._nn", "torch._tensor", "torch.functional", "torch.random"),
)
_PACKAGES = ("torch.nn", "torch.optim", "torch.utils.data", "torch.autograd", "torch.amp", "cutk", "cutk_builtin")
# Of these the constants count, too.
_WHOLLY = ("cutk", "cutk_builtin", "math")
_UNCHANGEABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, what is written in C
# What Python and the libraries keep in a class or a module while they work; the last goes with the default dtype.
_THEIR_OWN = ("__annot", "__pydantic", "__weakref__", "__dict__", "_abc_", "Storage")
_TORCHS_OWN = (os.path.join("torch", "_dynamo", ""), os.path.join("torch", "_compile.py"))
_OPTIMISER = os.path.join("torch", "optim", "optimizer.py")
_classes: dict[str, tuple[types.ModuleType, int, list[Any]]] = {}


@functools.lru_cache(maxsize=1)
def _watched_names(_number: int) -> list[str]:
    """Return the names of the modules that are watched, of those that are imported; ``_number`` is how many are."""
    whole, below = {*_MODULES, *_PACKAGES}, tuple(f"{package}." for package in _PACKAGES)
    return [name for name in list(sys.modules) if name in whole or name.startswith(below)]


def _is_being_imported(module: Any) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _owners(under: str) -> Iterator[Any]:
    """Yield the watched modules, those whose name starts with ``under``, and the classes in them."""
    for name in _watched_names(len(sys.modules)):
        module = sys.modules.get(name)
        if not name.startswith(under) or not isinstance(module, types.ModuleType):
            continue
        if name != under and _is_being_imported(module):
            continue  # which will be told when it is done
        known = _classes.get(name)
        if known is None or known[0] is not module or known[1] != len(vars(module)):
            known = _classes[name] = (module, len(vars(module)), list(_classes_of(module)))
        yield module
        yield from known[2]


def _classes_of(module: types.ModuleType) -> Iterator[type]:
    top = module.__name__.partition(".")[0]
    for value in list(vars(module).values()):
        if not isinstance(value, type) or value.__flags__ & _UNCHANGEABLE:
            continue
        if str(getattr(value, "__module__", "")).partition(".")[0] == top:
            yield value


def _matters(owner: Any, name: str, value: Any) -> bool:
    """Say whether others would notice another value; what libraries count and keep for themselves they may change."""
    if name.startswith(_THEIR_OWN):
        return False
    own = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
    called = callable(value) or hasattr(type(value), "__get__")
    return called or (own.partition(".")[0] in _WHOLLY and not name.startswith("__"))


def _is_torchs_doing(before: Any, now: Any) -> bool:
    """Say whether torch itself has wrapped a function, as it does when an optimiser is made for the first time."""
    if before is None or getattr(now, "__wrapped__", None) is not before or not isinstance(now, types.FunctionType):
        return False
    path = now.__code__.co_filename
    return any(part in path for part in _TORCHS_OWN) or (path.endswith(_OPTIMISER) and vars(now).get("hooked") is True)


def _changes(owner: Any, before: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names in a module or class that mean something else now, and what they meant, ``_ABSENT`` if nothing.

    What is new in a module hides nothing and is left alone; a new method of a class can hide one of its bases.
    """
    if _equal(vars(owner), before):  # at the speed of C where nothing has changed, which is nearly always
        return
    now = dict(vars(owner))
    for name, value in before.items():
        there = now.get(name, _ABSENT)
        if there is not value and _matters(owner, name, value) and not _is_torchs_doing(value, there):
            yield name, value
    if isinstance(owner, type):
        for name in now.keys() - before.keys():
            inherited = next((vars(base)[name] for base in owner.__mro__[1:] if name in vars(base)), None)
            if _matters(owner, name, now[name]) and not _is_torchs_doing(inherited, now[name]):
                yield name, _ABSENT


class _Snapshot:
    """What was there before, and of what is imported meanwhile, what was there right after its import."""

    def __init__(self) -> None:
        self._attributes: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._states: dict[str, Any] = {}
        self.add()

    def add(self, under: str = "") -> None:
        """Take what isn't in it yet; of modules, those whose name starts with ``under``."""
        for owner in _owners(under):
            if id(owner) not in self._attributes:
                self._attributes[id(owner)] = (owner, dict(vars(owner)))
        # Asking torch while it is being imported, as when it imports NumPy, ends the process.
        halfway = under != "torch" and _is_being_imported(sys.modules.get("torch"))
        for state in _STATES:
            if self._states.get(state.name, _ABSENT) is _ABSENT and not (halfway and state.module.startswith("torch")):
                self._states[state.name] = state.now()

    def restore(self) -> list[str]:
        """Put everything back, and return the names of what had changed."""
        changed = []
        for owner, before in self._attributes.values():
            for name, value in list(_changes(owner, before)):
                with contextlib.suppress(Exception):  # what can't be set can't have been patched
                    delattr(owner, name) if value is _ABSENT else setattr(owner, name, value)
                own = [owner.__module__, owner.__qualname__] if isinstance(owner, type) else [owner.__name__]
                changed.append(".".join([*own, name]))
        for state in _STATES:
            before = self._states[state.name]
            if state.differs(before):
                with contextlib.suppress(Exception):
                    state.restore(sys.modules[state.module], before)
                changed.append(state.name + (", which cannot be put back" if state.differs(before) else ""))
        return changed


class _Importing:
    """Has the snapshot completed right after a watched module was imported for the first time."""

    _LIBRARIES = ("torch", "numpy", "numpy.random", "multiprocessing")

    def __init__(self, snapshot: _Snapshot) -> None:
        self._snapshot = snapshot

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self._LIBRARIES and name.partition(".")[0] not in _WHOLLY:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            if find and (spec := find(name, path, target)) is not None:
                with contextlib.suppress(AttributeError):  # a loader of somebody's own making
                    spec.loader.exec_module = functools.partial(self._execute, spec.loader.exec_module)
                return spec
        return None

    def _execute(self, execute: Callable[[types.ModuleType], None], module: types.ModuleType) -> None:
        execute(module)
        self._snapshot.add(module.__name__)


@contextlib.contextmanager
def watched(*, draws: bool = True) -> Iterator[list[str]]:
    """Yield a list that names, once the block has ended, all that it changed in the process; it is put back.

    ``STATES`` lists what is watched; besides, functions and methods of Python's, NumPy's and torch's modules that take
    part in every training, and all of cutk's: ``torch.optim.sgd.SGD.step`` is how one that was replaced is named. A
    module that is imported in the block counts from then on.

    Args:
        draws: whether to name random states, too, that were drawn from.

    >>> with watched() as changed:
    ...     os.environ["CUTK_EXAMPLE"] = "1"
    >>> changed, "CUTK_EXAMPLE" in os.environ
    (['the environment variables'], False)
    """
    changed: list[str] = []
    snapshot = _Snapshot()
    importing = _Importing(snapshot)
    sys.meta_path.insert(0, importing)
    try:
        yield changed
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(importing)
        changed += [name for name in snapshot.restore() if draws or not name.startswith(DRAWS)]
