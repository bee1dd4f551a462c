"""Watch the routers of a reference model while it runs.

A case is only a fair test when no routing decision hangs on the last bits of a
float, so the recorder keeps the smallest gap between the last chosen and the
first rejected candidate, and it counts which experts were used at all.
"""

import torch

ROUTER_CLASSES = ("Router", "Gate")


def is_router_weight(name):
    return name.endswith(("gate.weight", "router.weight", "gate.wg.weight", "router.layer.weight"))


def is_qk_norm(name):
    return name.endswith(("q_norm.weight", "k_norm.weight", "query_layernorm.weight", "key_layernorm.weight"))


def cut(scores, k):
    """Smallest distance between rank k and rank k + 1 over all rows."""
    if k >= scores.shape[-1]:
        return float("inf")
    top = scores.topk(k + 1, dim=-1).values
    gap = top[..., k - 1] - top[..., k]
    gap = gap[torch.isfinite(gap)]  # masked experts are minus infinity
    return float(gap.min()) if gap.numel() else float("inf")


class Recorder:
    """Context manager: hooks every router module of `model`."""

    def __init__(self, model, case):
        self.model, self.case = model, case
        self.gap, self.calls, self.used, self.zero_fill_differs = float("inf"), 0, {}, 0

    def __enter__(self):
        self.handles = []
        for name, module in self.model.named_modules():
            if type(module).__name__.endswith(ROUTER_CLASSES):
                self.handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *exc):
        for handle in self.handles:
            handle.remove()

    def _hook(self, name):
        def hook(module, args, output):
            logits, index = self.case.read_router(module, args, output)
            logits = logits.float().reshape(-1, logits.shape[-1])
            self.calls += 1
            self.used.setdefault(name, set()).update(index.reshape(-1).tolist())
            self._measure(module, args, logits, index.reshape(logits.shape[0], -1))

        return hook

    def _measure(self, module, args, logits, index):
        """Recompute the selection in the official way and compare it with the reference."""
        case, k = self.case, index.shape[-1]
        scores = case.selection_scores(module, args, logits)
        if case.groups:
            scores = self._limit_groups(scores, k)
        chosen = scores.topk(k, dim=-1).indices.sort(dim=-1).values
        assert torch.equal(chosen, index.sort(dim=-1).values), f"{case.name}: selection differs from the reference"
        self.gap = min(self.gap, cut(scores, k))
        if case.extra_gap:
            self.gap = min(self.gap, case.extra_gap(module, logits))

    def _limit_groups(self, scores, k):
        """Keep the best groups; the others become minus infinity.

        The official DeepSeek code fills with minus infinity, some ports with
        0.0, which lets a masked expert win over a negative biased score.  Rows
        where the two would differ are counted, so that a case can ask for them.
        """
        groups, keep, kind = self.case.groups
        split = scores.view(scores.shape[0], groups, -1)
        worth = split.topk(2, dim=-1).values.sum(-1) if kind == "top2" else split.max(dim=-1).values
        self.gap = min(self.gap, cut(worth, keep))
        kept = torch.zeros_like(worth, dtype=torch.bool)
        kept.scatter_(1, worth.topk(keep, dim=-1).indices, True)
        masked = ~kept.repeat_interleave(split.shape[-1], dim=1)
        with_inf = scores.masked_fill(masked, float("-inf"))
        zero = scores.masked_fill(masked, 0.0).topk(k, dim=-1).indices.sort(dim=-1).values
        rows = (with_inf.topk(k, dim=-1).indices.sort(dim=-1).values != zero).any(dim=-1)
        self.zero_fill_differs += int(rows.sum())
        return with_inf

    def coverage(self):
        """Why the routing seen so far would be a weak test, or None."""
        case = self.case
        if not case.experts:
            return None
        assert self.used, f"{case.name}: no router was seen"
        for name, used in self.used.items():
            if len(used) < min(case.experts, max(2, int(0.6 * case.experts))):
                return f"{name} uses only {len(used)} experts"
        if case.want_negative_scores and not self.zero_fill_differs:
            return "no row tells 0.0 from minus infinity in masked groups"
        if case.groups and not case.want_negative_scores and self.zero_fill_differs:
            return "masked groups: 0.0 and minus infinity disagree"
        return None
