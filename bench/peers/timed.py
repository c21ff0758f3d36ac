"""The time of every operator that PyTorch runs inside some modules, with the path of the module that called it."""

import time

from torch.utils._python_dispatch import TorchDispatchMode

from layers import module_path


class OperatorTimer(TorchDispatchMode):
    """While it is entered, fills `layers` (see layers.py). roots: part -> {path: module}.

    On the CPU an operator has finished when it returns. Views are left out: they compute nothing. What PyTorch spends between
    operators, in Python, is in no layer."""

    def __init__(self, roots):
        super().__init__()
        self.layers, self.calls, self.active = [], [], False
        for part, modules in roots.items():
            for root, module in modules.items():
                for path, inner in module.named_modules(prefix=root):
                    inner.register_forward_pre_hook(lambda *_, call=(part, path): self.calls.append(call))
                    inner.register_forward_hook(lambda *_: self.leave())

    def leave(self):
        self.calls.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        begin = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - begin
        if self.calls and not func.is_view:
            self.layers.append(self.layer(func, args, result, seconds))
        return result

    def layer(self, func, args, result, seconds):
        part, path = self.calls[-1]
        operator = str(func)
        operator = operator.rpartition(".")[0] if operator.count(".") > 1 else operator  # without the overload
        layer = {"part": part, "name": path, "path": module_path(path), "operator": operator, "seconds": seconds}
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if hasattr(first, "shape"):
            layer["output"] = list(first.shape)
        if operator == "aten.convolution":
            layer["kernel"] = args[1].shape[-1]
        elif operator in ("aten.addmm", "aten.mm"):
            layer["kernel"] = 1
        elif operator in ("aten.bmm", "aten.baddbmm"):
            layer["weighted"] = False
        return layer
