"""The expert layer of Polymath beside PyTorch's, on the same inputs, interleaved in one run.

    python bench/baselines/torch_moe.py --library libpolymath.so --shape qwen3-30b -T 1,512,4096

Both compute y[t] = sum over the K picked experts of weight * down(silu(gate x) * up x) with BF16
weights and activations, from logits to y:

  polymath     pm_layer_forward of the C library
  grouped_mm   torch: top-k, sort by expert, torch._grouped_mm twice, index_add (GPU only)
  loop         torch: top-k, sort by expert, three GEMMs (cuBLAS on a GPU) for each expert

Timing: on a GPU each implementation is a CUDA graph (the loop, whose shapes depend on the routing,
is captured for this routing, which favours it); before every replay a buffer larger than L2 is
read; the implementations take turns within a repeat; the median of --repeats is reported with
the quartiles. Every result is first compared with a float32 computation of 64 rows. One JSON
object a line on stdout.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

# D, F, E, K as in published configurations
SHAPES = {
    "mixtral": (4096, 14336, 8, 2),
    "qwen3-30b": (2048, 768, 128, 8),
    "qwen3-235b": (4096, 1536, 128, 8),
    "olmoe": (2048, 1024, 64, 8),
    "deepseek-v2-lite": (2048, 1408, 64, 6),
    "sonic": (4096, 2048, 64, 4),
    "tiny": (256, 128, 16, 2),
}
F32, BF16 = 0, 2  # pm_dtype


class Shape(ctypes.Structure):
    """pm_layer_shape of polymath.h."""

    _fields_ = [(n, ctypes.c_int32) for n in ("n_expert", "top_k", "hidden", "inner", "weight_type", "bias_type",
                                              "gate_type", "x_type", "y_type", "gate_up", "glu")]
    _fields_ += [("alpha", ctypes.c_float), ("limit", ctypes.c_float)]
    _fields_ += [(n, ctypes.c_int32) for n in ("score", "group", "n_group", "top_group", "weight", "renorm")]
    _fields_ += [(n, ctypes.c_float) for n in ("floor", "scale", "jitter")] + [("scale_input", ctypes.c_int32)]


class Weights(ctypes.Structure):
    """pm_layer_weights."""

    _fields_ = [(n, ctypes.c_void_p) for n in ("w_gate", "w_up", "w_down", "s_gate", "s_up", "s_down", "b_gate",
                                               "b_up", "b_down", "gate", "gate_bias", "select_bias")]


class Options(ctypes.Structure):
    """pm_layer_options."""

    _fields_ = [("device", ctypes.c_char_p), ("n_thread", ctypes.c_int32), ("max_row", ctypes.c_int64),
                ("beside", ctypes.c_void_p)]


class Step(ctypes.Structure):
    """pm_layer_step."""

    _fields_ = [(n, ctypes.c_void_p) for n in ("y", "x", "logits", "id", "weight")]
    _fields_ += [("n_row", ctypes.c_int64), ("add", ctypes.c_int32), ("workspace", ctypes.c_void_p),
                 ("workspace_bytes", ctypes.c_size_t), ("stream", ctypes.c_void_p)]


class Polymath:
    """The C library's layer over torch tensors."""

    def __init__(self, path, case):
        self.lib = ctypes.CDLL(path)
        self.lib.pm_last_error.restype = ctypes.c_char_p
        self.case, self.layer = case, ctypes.c_void_p()
        cuda = case.x.is_cuda
        kind = BF16 if cuda else F32
        shape = Shape(n_expert=case.e, top_k=case.k, hidden=case.d, inner=case.f, weight_type=BF16, gate_type=F32,
                      x_type=kind, y_type=kind, glu=1, renorm=1, scale=1.0)
        weights = Weights(w_gate=case.gate.data_ptr(), w_up=case.up.data_ptr(), w_down=case.down.data_ptr())
        self.x = case.x if cuda else case.x.float()
        options = Options(device=b"cuda:0" if cuda else b"cpu", max_row=case.t)
        self.check(self.lib.pm_layer_open(ctypes.byref(self.layer), ctypes.byref(shape), ctypes.byref(weights),
                                          ctypes.byref(options)))
        size = ctypes.c_size_t()
        self.check(self.lib.pm_layer_workspace(ctypes.byref(size), self.layer, ctypes.c_int64(case.t)))
        self.y = torch.empty_like(self.x)
        self.space = torch.empty(size.value, dtype=torch.uint8, device=case.x.device)

    def check(self, status):
        if status:
            raise RuntimeError(self.lib.pm_last_error().decode())

    def __call__(self):
        stream = torch.cuda.current_stream().cuda_stream if self.y.is_cuda else None
        step = Step(y=self.y.data_ptr(), x=self.x.data_ptr(), logits=self.case.logits.data_ptr(),
                    n_row=self.case.t, workspace=self.space.data_ptr(), workspace_bytes=self.space.numel(),
                    stream=stream)
        self.check(self.lib.pm_layer_forward(self.layer, ctypes.byref(step)))
        return self.y

    def close(self):
        self.lib.pm_layer_close(self.layer)


class Case:
    """One shape, one number of rows: weights, rows and logits from a seed."""

    def __init__(self, name, t, device, seed):
        self.name, self.t = name, t
        self.d, self.f, self.e, self.k = SHAPES[name]
        g = torch.Generator(device).manual_seed(seed)

        def random(*size, scale=1.0):
            return (torch.randn(*size, generator=g, device=device) * scale).bfloat16()

        self.gate = random(self.e, self.f, self.d, scale=self.d ** -0.5)
        self.up = random(self.e, self.f, self.d, scale=self.d ** -0.5)
        self.down = random(self.e, self.d, self.f, scale=self.f ** -0.5)
        self.x = random(t, self.d)
        self.logits = torch.randn(t, self.e, generator=g, device=device)

    def route(self):
        """Weights [T, K] (softmax over all, renormalised) and ids [T, K]."""
        weight, chosen = torch.softmax(self.logits, -1).topk(self.k, -1)
        return weight / weight.sum(-1, keepdim=True), chosen

    def sort(self, chosen):
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)
        return order, torch.bincount(flat, minlength=self.e)

    def grouped(self):
        weight, chosen = self.route()
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)
        # counts without a host synchronisation
        ends = F.one_hot(flat, self.e).sum(0).cumsum(0).to(torch.int32)
        rows = self.x[order // self.k]
        g = torch._grouped_mm(rows, self.gate.transpose(1, 2), offs=ends)
        u = torch._grouped_mm(rows, self.up.transpose(1, 2), offs=ends)
        y = torch._grouped_mm(F.silu(g) * u, self.down.transpose(1, 2), offs=ends)
        y = y * weight.reshape(-1)[order].unsqueeze(1)
        return torch.zeros_like(self.x, dtype=torch.float32).index_add_(0, order // self.k, y.float())

    def make_loop(self):
        """The loop for this routing: counts are known before the timing."""
        counts = self.sort(self.route()[1])[1].tolist()

        def loop():
            weight, chosen = self.route()
            order = chosen.reshape(-1).argsort(stable=True)
            rows = self.x[order // self.k]
            scale, parts, a = weight.reshape(-1)[order].unsqueeze(1), [], 0
            for e, n in enumerate(counts):
                if n:
                    r = rows[a:a + n]
                    h = F.silu(r @ self.gate[e].t()) * (r @ self.up[e].t())
                    parts.append(h @ self.down[e].t())
                    a += n
            y = torch.cat(parts).float() * scale
            return torch.zeros_like(self.x, dtype=torch.float32).index_add_(0, order // self.k, y)

        return loop

    def reference(self, rows):
        """The layer in float32 for the first rows."""
        weight, chosen = self.route()
        out = torch.zeros(rows, self.d, device=self.x.device)
        for t in range(rows):
            for w, e in zip(weight[t], chosen[t]):
                x = self.x[t].float()
                h = F.silu(self.gate[e].float() @ x) * (self.up[e].float() @ x)
                out[t] += w * (self.down[e].float() @ h)
        return out

    def bytes_and_flops(self):
        active = len(self.route()[1].unique())
        weights = active * 3 * self.d * self.f * 2
        rows = self.t * self.d * (2 + 2) + self.t * self.e * 4
        return weights + rows, 6 * self.t * self.k * self.d * self.f


def timer(call, cuda):
    """A function that runs `call` once from cold caches and returns seconds."""
    if not cuda:
        def once():
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

        return once
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    flush = torch.ones(64 << 20, dtype=torch.int32, device="cuda")

    def once():
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(stream):
            flush.sum()  # reads: lines that were written would leave L2 during the replay
            start.record(stream)
            graph.replay()
            end.record(stream)
        end.synchronize()
        return start.elapsed_time(end) * 1e-3

    return once


def run(name, t, args):
    cuda = args.device.startswith("cuda")
    case = Case(name, t, args.device, args.seed)
    layer = Polymath(args.library, case)
    calls = {"polymath": layer, "loop": case.make_loop()}
    if cuda:
        calls["grouped_mm"] = case.grouped
    n_check = min(t, 64)
    want, seconds, error = case.reference(n_check), {}, {}
    for key, call in calls.items():
        got = call()[:n_check].float()
        error[key] = ((got - want).norm() / want.norm()).item()
        if not error[key] < 0.02:
            raise RuntimeError(f"{key}: relative error {error[key]:.3g} on {name}, T = {t}")
    timers = {key: timer(call, cuda) for key, call in calls.items()}
    for _ in range(args.repeats):
        for key, once in timers.items():
            seconds.setdefault(key, []).append(once())
    size, flops = case.bytes_and_flops()
    for key, all_of_it in seconds.items():
        low, mid, high = statistics.quantiles(all_of_it, n=4) if len(all_of_it) > 1 else [all_of_it[0]] * 3
        device = torch.cuda.get_device_name() if cuda else "cpu"
        print(json.dumps({"device": device, "torch": torch.__version__, "shape": name, "T": t, "what": key,
                          "us": round(mid * 1e6, 2), "us_quartiles": [round(low * 1e6, 2), round(high * 1e6, 2)],
                          "gbs": round(size / mid * 1e-9, 1), "tflops": round(flops / mid * 1e-12, 2),
                          "relative_error": round(error[key], 6), "repeats": args.repeats}), flush=True)
    layer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", default="libpolymath.so", help="path of the C library")
    parser.add_argument("--shape", default="qwen3-30b", help="of: " + ", ".join(SHAPES))
    parser.add_argument("-T", default="1,8,64,512,1024,4096,16384", help="numbers of rows")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for name in args.shape.split(","):
        if name not in SHAPES:
            sys.exit(f"--shape: found {name}, wanted one of {', '.join(SHAPES)}")
        for t in args.T.split(","):
            with torch.no_grad():
                run(name, int(t), args)


if __name__ == "__main__":
    main()
