"""The state of a process that its code shares: how each piece of it is read, compared and put back."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from locale import LC_ALL, setlocale
from operator import attrgetter
from typing import Any, NamedTuple

__all__ = ["ABSENT", "STATES", "State", "equal"]

ABSENT: Any = object()


def equal(first: Any, second: Any) -> bool:
    """Say whether two values are equal; what can't be compared isn't."""
    try:
        return bool(first == second)
    except Exception:  # what a plugin left there needn't be comparable
        return False


class State(NamedTuple):
    """How to read a piece of global state, and how to put it back, both given the module that it belongs to."""

    module: str
    read: Callable[[Any], Any]
    restore: Callable[[Any, Any], object]
    same: Callable[[Any, Any], bool] = equal

    def now(self) -> Any:
        """Return it as it is, ``ABSENT`` where its module isn't imported, or this version of it has no such thing."""
        try:
            return self.read(sys.modules[self.module])
        except Exception:
            return ABSENT

    def differs(self, before: Any) -> bool:
        """Say whether it is something else now; what wasn't there before doesn't count."""
        return before is not ABSENT and ((now := self.now()) is ABSENT or not self.same(before, now))


def _called(module: Any, function: str, *arguments: Any) -> Any:
    try:
        return attrgetter(function)(module)(*arguments)
    except Exception:  # this version lacks it, or an old word can't say what was said with a new one
        return ABSENT


def _switches(pairs: str, *arguments: Any, module: str = "torch", more: State | None = None) -> State:
    """Return the state that is read and written by pairs of functions, as far as this version of the module has them.

    A pair is ``getter/setter``, or one word with ``{}`` where they have ``get`` and ``set``. Both take each of
    ``arguments`` first. ``more`` is of the same module, and is put back before these.
    """
    names = [(pair.format("get").split("/")[0], pair.format("set").split("/")[-1]) for pair in pairs.split()]
    calls = [(*pair, given) for given in arguments or [()] for pair in names]

    def read(module: Any) -> dict[Any, Any]:
        found = {call: _called(module, call[0], *call[2]) for call in calls}
        return (more.read(module) if more else {}) | {call: v for call, v in found.items() if v is not ABSENT}

    def restore(module: Any, before: dict[Any, Any]) -> None:
        for (getter, setter, given), value in before.items():
            if not equal(_called(module, getter, *given), value):
                _called(module, setter, *given, *(value if isinstance(value, tuple) else (value,)))

    return State(module, read, restore)


def _attributes(module: str, *names: str, hooks: bool = False) -> State:
    """Return some attributes of a module, or torch's tables of hooks, with the content of lists and dicts."""

    def read(module: Any) -> dict[str, Any]:
        found = {n: v for n, v in vars(module).items() if n in names or (hooks and n.startswith("_global_"))}
        return {n: (v, v.copy() if isinstance(v, list | dict) else None) for n, v in found.items()}

    def restore(module: Any, before: dict[str, Any]) -> None:
        for name, (value, content) in before.items():
            setattr(module, name, value)
            if isinstance(value, list):  # others hold on to it
                value[:] = content
            elif isinstance(value, dict):
                value.clear()
                value.update(content)

    return State(module, read, restore)


# Torch's own.


def _read_modes(torch: Any) -> list[Any]:
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return [torch.overrides._get_current_function_mode_stack(), context, torch.utils._device.CURRENT_DEVICE]


def _restore_modes(torch: Any, before: list[Any]) -> None:
    functions, torch._GLOBAL_DEVICE_CONTEXT.device_context, torch.utils._device.CURRENT_DEVICE = before
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    for mode in functions:
        torch._C._push_on_torch_function_stack(mode)


def _restore_dispatch(torch: Any, before: list[Any]) -> None:
    dispatch = torch.utils._python_dispatch
    while (now := dispatch._get_current_dispatch_mode_stack()) and now != before[: len(now)]:
        now[-1].__exit__(None, None, None)
    for mode in before[len(now) :]:
        dispatch._push_mode(mode)


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


_AUTOCAST = _switches(
    "is_autocast_enabled/set_autocast_enabled get_autocast_dtype/set_autocast_dtype",
    *(("cpu",), ("cuda",), ("mps",), ("xpu",)),
    more=_switches("is_autocast_cache_enabled/set_autocast_cache_enabled"),
)


def _autocast_depth(torch: Any) -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _restore_autocast(torch: Any, before: tuple[dict[Any, Any], int]) -> None:
    _AUTOCAST.restore(torch, before[0])
    for _ in range(_autocast_depth(torch) - before[1]):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()  # at a greater depth, it kept weights as they were


# Chance.


def _read_chance(torch: Any) -> dict[Any, Any]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return {"cpu": torch.get_rng_state()} | {device: torch.cuda.get_rng_state(device) for device in devices}


def _restore_chance(torch: Any, before: dict[Any, Any]) -> None:
    for device, state in before.items():
        torch.set_rng_state(state) if device == "cpu" else torch.cuda.set_rng_state(state, device)


def _plain(value: Any) -> Any:
    """Return arrays and tensors as lists, which can be compared as a whole."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _same_chance(before: dict[str, Any], now: dict[str, Any]) -> bool:
    # A device that is used for the first time has a state that nobody used before.
    return bool(_plain(now) == _plain({**now, **before}))


# Python and the process.

_SIGNALS = tuple(signal.valid_signals())


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


# Torch sets some of its own when it is first asked to optimise, and libraries for OpenMP when they are imported.
_OWN = ("TORCHINDUCTOR_", "TRITON_", "KMP_")


def _same_environment(before: dict[str, str], now: dict[str, str]) -> bool:
    return before == {n: v for n, v in now.items() if n in before or not n.startswith(_OWN)}


def _restore_filters(_: Any, before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]
    with warnings.catch_warnings():  # which has it noticed that they changed
        pass


def _same_filters(before: list[Any], now: list[Any]) -> bool:
    """Say whether none is new but of those that libraries add for warnings of their own when they are imported."""

    def general(action: str, message: Any, category: type[Warning], module: Any, *_: Any) -> bool:
        return action == "error" or not (message or module or category.__module__ != "builtins")

    return before == now or before == [f for f in now if f in before or general(*f)]


def _read_log(_: Any) -> tuple[Any, ...]:
    root = logging.getLogger()
    return root.level, list(root.handlers), root.disabled, root.manager.disable


def _restore_log(_: Any, before: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    level, root.handlers[:], root.disabled, disabled = before
    root.setLevel(level)
    logging.disable(disabled)


# In this order: what comes later is read and put back by functions that the earlier ones may have turned.
STATES = {
    "the default device or another function mode of torch's": State("torch", _read_modes, _restore_modes),
    "torch's dispatch modes": State(
        "torch", lambda torch: torch.utils._python_dispatch._get_current_dispatch_mode_stack(), _restore_dispatch
    ),
    "the inference mode": State("torch", lambda torch: torch.is_inference_mode_enabled(), _restore_inference),
    "the grad mode": _switches(
        "is_grad_enabled/_C._set_grad_enabled _C._is_fwd_grad_enabled/_C._set_fwd_grad_enabled "
        "_C._is_multithreading_enabled/_C._set_multithreading_enabled is_anomaly_enabled/set_anomaly_enabled"
    ),
    "the hooks on tensors saved for backward": State("torch", _read_saving, _restore_saving),
    "autocast": State("torch", lambda torch: (_AUTOCAST.read(torch), _autocast_depth(torch)), _restore_autocast),
    "the hooks of all modules": _attributes("torch.nn.modules.module", hooks=True),
    "the hooks of all optimisers": _attributes("torch.optim.optimizer", hooks=True),
    "torch's deterministic algorithms": _switches(
        "{}_deterministic_debug_mode _C._{}_deterministic_fill_uninitialized_memory"
    ),
    "oneDNN's settings": _switches("_C._{}_mkldnn_enabled _C._{}_mkldnn_deterministic _C._{}_nnpack_enabled"),
    "cuDNN's settings": _switches(
        "_C._{}_cudnn_enabled _C._{}_cudnn_benchmark _C._{}_cudnn_deterministic _C._cuda_{}_cudnn_benchmark_limit"
    ),
    # In the old words, then in those of newer versions: where, and by which operation.
    "the precision of float32 products": _switches(
        "_C._get_fp32_precision_getter/_C._set_fp32_precision_setter",
        ("generic", "all"),
        *((place, operation) for place in ("cuda", "mkldnn") for operation in ("all", "matmul", "conv", "rnn")),
        more=_switches(
            "_C._{}_float32_matmul_precision _C._{}_cublas_allow_tf32 _C._{}_cudnn_allow_tf32 _C._{}_onednn_allow_tf32"
        ),
    ),
    "the precision of 16-bit products": _switches(
        "_C._{}_cpu_allow_fp16_reduced_precision_reduction _C._{}_cublas_allow_fp16_reduced_precision_reduction "
        "_C._{}_cublas_allow_bf16_reduced_precision_reduction _C._{}_cublas_allow_fp16_accumulation"
    ),
    "the choice of algorithms": _switches(
        "_C._get_flash_sdp_enabled/_C._set_sdp_use_flash _C._get_math_sdp_enabled/_C._set_sdp_use_math "
        "_C._get_mem_efficient_sdp_enabled/_C._set_sdp_use_mem_efficient "
        "_C._get_cudnn_sdp_enabled/_C._set_sdp_use_cudnn "
        "_C._{}_linalg_preferred_backend _C._{}_blas_preferred_backend _C._{}_qengine"
    ),
    "the number of threads": _switches("{}_num_threads"),
    "the number of threads between operations": _switches("{}_num_interop_threads"),
    "the treatment of denormal numbers": State(
        "torch", lambda _: sum([5e-324, 5e-324]) == 0.0, lambda torch, before: torch.set_flush_denormal(before)
    ),
    "the default dtype": _switches("{}_default_dtype"),
    "the current CUDA device": State(
        "torch.cuda",
        lambda cuda: cuda.current_device() if cuda.is_initialized() else ABSENT,
        lambda cuda, before: cuda.set_device(before),
    ),
    "torch's random state": State("torch", _read_chance, _restore_chance, _same_chance),
    "NumPy's random state": State(
        "numpy.random",
        lambda numpy: numpy.get_state(legacy=False),
        lambda numpy, before: numpy.set_state(before),
        _same_chance,
    ),
    "Python's random state": State("random", lambda _: random.getstate(), lambda _, before: random.setstate(before)),
    "NumPy's errors": State("numpy", lambda numpy: numpy.geterr(), lambda numpy, before: numpy.seterr(**before)),
    "the filters of warnings": State("warnings", lambda _: list(warnings.filters), _restore_filters, _same_filters),
    "the working folder": _switches("getcwd/chdir", module="os"),
    "the environment variables": State("os", lambda _: dict(os.environ), _restore_environment, _same_environment),
    "the handling of signals": State("signal", _read_signals, _restore_signals),
    "the locale": State("locale", lambda _: setlocale(LC_ALL), lambda _, before: setlocale(LC_ALL, before)),
    "the path of imports": _attributes("sys", "path"),
    "the standard streams": _attributes("sys", "stdin", "stdout", "stderr", "displayhook", "excepthook"),
    "the log": State("logging", _read_log, _restore_log),
    "the limit of recursion": _switches("{}recursionlimit", module="sys"),
    "the garbage collector": State("gc", lambda _: gc.isenabled(), lambda _, on: gc.enable() if on else gc.disable()),
    "how processes are started": State(
        "multiprocessing",
        lambda processes: processes.get_start_method(allow_none=True),
        lambda processes, before: processes.set_start_method(before, force=True),
        # Whoever starts one in a way of their own has the default written down.
        lambda before, now: now in (before, before or sys.modules["multiprocessing"].get_all_start_methods()[0]),
    ),
}
