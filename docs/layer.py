"""The expert layer of libpolymath.so from Python, without any other binding than ctypes.

    python3 layer.py path/to/libpolymath.so            # numpy arrays, on the CPU
    python3 layer.py path/to/libpolymath.so cuda:0     # torch tensors, on a GPU

Computes one layer, checks it against numpy and prints the largest difference.
"""

import ctypes as c
import sys

import numpy as np

F32, BF16 = 0, 2  # pm_dtype
SILU, SOFTMAX, RENORM_SUM = 1, 0, 1


def struct(name, fields):
    kinds = {"i": c.c_int32, "l": c.c_int64, "f": c.c_float, "p": c.c_void_p, "z": c.c_size_t, "s": c.c_char_p}
    pairs = [field.split(":") for field in fields.split()]
    return type(name, (c.Structure,), {"_fields_": [(field, kinds[kind]) for field, kind in pairs]})


Shape = struct("Shape", "n_expert:i top_k:i hidden:i inner:i weight_type:i bias_type:i gate_type:i x_type:i "
               "y_type:i gate_up:i glu:i alpha:f limit:f score:i group:i n_group:i top_group:i weight:i "
               "renorm:i floor:f scale:f jitter:f scale_input:i")
Weights = struct("Weights", "w_gate:p w_up:p w_down:p s_gate:p s_up:p s_down:p b_gate:p b_up:p b_down:p "
                 "gate:p gate_bias:p select_bias:p")
Options = struct("Options", "device:s n_thread:i max_row:l beside:p")
Step = struct("Step", "y:p x:p logits:p id:p weight:p n_row:l add:i workspace:p workspace_bytes:z stream:p")


def main():
    lib = c.CDLL(sys.argv[1])
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    lib.pm_last_error.restype = c.c_char_p
    lib.pm_layer_close.restype = None

    def call(name, *arguments):
        if getattr(lib, name)(*arguments) != 0:
            sys.exit(f"{name}: {lib.pm_last_error().decode()}")

    if device == "cpu":
        place, pointer, stream, wait = np.ascontiguousarray, lambda a: a.ctypes.data, None, lambda: None
    else:
        import torch
        torch.cuda.set_device(device)
        place, pointer = lambda a: torch.from_numpy(a).to(device), lambda a: a.data_ptr()
        stream, wait = torch.cuda.current_stream().cuda_stream, torch.cuda.synchronize

    rows, experts, top_k, hidden, inner = 33, 16, 4, 128, 96
    draw = lambda *size: (np.random.default_rng(sum(size)).standard_normal(size) * 0.2).astype(np.float32)
    host = dict(x=draw(rows, hidden), logits=draw(rows, experts) * 5, w_gate=draw(experts, inner, hidden),
                w_up=draw(experts, inner, hidden) * 2, w_down=draw(experts, hidden, inner))
    there = {name: place(value) for name, value in host.items()}
    there["y"] = place(np.zeros((rows, hidden), np.float32))

    shape = Shape(n_expert=experts, top_k=top_k, hidden=hidden, inner=inner, glu=SILU, score=SOFTMAX,
                  renorm=RENORM_SUM)
    weights = Weights(**{name: pointer(there[name]) for name in ("w_gate", "w_up", "w_down")})
    options = Options(device=device.encode(), max_row=rows)
    layer, size = c.c_void_p(), c.c_size_t()
    call("pm_layer_open", c.byref(layer), c.byref(shape), c.byref(weights), c.byref(options))
    call("pm_layer_workspace", c.byref(size), layer, c.c_int64(rows))
    workspace = place(np.zeros(size.value, np.uint8))
    step = Step(y=pointer(there["y"]), x=pointer(there["x"]), logits=pointer(there["logits"]), n_row=rows,
                workspace=pointer(workspace), workspace_bytes=size.value, stream=stream)
    call("pm_layer_forward", layer, c.byref(step))
    picked, share = np.zeros((rows, top_k), np.int32), np.zeros((rows, top_k), np.float32)
    call("pm_layer_routing", layer, c.c_void_p(picked.ctypes.data), c.c_void_p(share.ctypes.data))
    wait()
    lib.pm_layer_close(layer)

    want = np.zeros((rows, hidden))
    score = np.exp(host["logits"].astype(np.float64))
    for t in range(rows):
        best = np.argsort(-score[t], kind="stable")[:top_k]
        assert (best == picked[t]).all(), (best, picked[t])
        for e in best:
            gate, up = host["w_gate"][e] @ host["x"][t].astype(np.float64), host["w_up"][e] @ host["x"][t]
            want[t] += score[t, e] / score[t, best].sum() * (host["w_down"][e] @ (gate / (1 + np.exp(-gate)) * up))
    y = there["y"] if device == "cpu" else there["y"].cpu().numpy()
    error = np.abs(y - want).max() / np.abs(want).max()
    print(f"{rows} rows, {experts} experts, {top_k} of them a row, on {device}: relative error {error:.1e}")
    sys.exit(int(error > 1e-5))


main()
