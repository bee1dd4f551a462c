"""A Qwen3-MoE decoder written for fast training on a CPU.

The arithmetic is that of Qwen3MoeForCausalLM (pre-norm, q/k norm, rotary
embedding on half-split heads, softmax router with renormalised top-k, SwiGLU
experts, tied embeddings). Two parts have hand-written backward passes: the
experts (tokens sorted by expert, one GEMM per expert and matrix) and the
output layer (logits exist only for a chunk of tokens at a time).
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    """The shape of the model, in the names of the Hugging Face config."""

    vocab_size: int = 6144
    hidden_size: int = 256
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    num_experts: int = 16
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 128
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 1024

    def dict(self):
        return asdict(self)


class GroupedExperts(torch.autograd.Function):
    """Sum over the chosen experts of weight * down(silu(gate(x)) * up(x)).

    Slots (token, choice) are sorted by expert so that each expert sees one
    contiguous block of rows; element-wise work is done block by block while
    the block is still in cache.
    """

    @staticmethod
    def forward(ctx, x, weight, chosen, gate_up, down):
        tokens, k = chosen.shape
        experts, inner = gate_up.shape[0], down.shape[2]
        order = chosen.reshape(-1).argsort(stable=True)
        counts = torch.bincount(chosen.reshape(-1), minlength=experts).tolist()
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        rows = x[order // k]
        scale = weight.reshape(-1)[order].unsqueeze(1)
        pre = x.new_empty(tokens * k, 2 * inner)
        act = x.new_empty(tokens * k, inner)
        y = torch.empty_like(rows)
        a = 0
        for e, n in enumerate(counts):
            if n:
                b = a + n
                torch.mm(rows[a:b], gate_up[e].t(), out=pre[a:b])
                torch.mul(F.silu(pre[a:b, :inner]), pre[a:b, inner:], out=act[a:b])
                torch.mm(act[a:b], down[e].t(), out=y[a:b])
                y[a:b] *= scale[a:b]
                a = b
        ctx.save_for_backward(rows, scale, pre, act, gate_up, down, order, inverse)
        ctx.counts, ctx.k = counts, k
        return y[inverse].view(tokens, k, -1).sum(1)

    @staticmethod
    def backward(ctx, grad):
        rows, scale, pre, act, gate_up, down, order, inverse = ctx.saved_tensors
        inner = act.shape[1]
        grad_rows = grad[order // ctx.k]
        d_gate_up, d_down = torch.zeros_like(gate_up), torch.zeros_like(down)
        d_scale, d_x = torch.zeros_like(scale), torch.empty_like(rows)
        a = 0
        for e, n in enumerate(ctx.counts):
            if n:
                b = a + n
                g, gate, up = grad_rows[a:b], pre[a:b, :inner], pre[a:b, inner:]
                d_act = g @ down[e]
                torch.sum(d_act * act[a:b], 1, keepdim=True, out=d_scale[a:b])
                torch.mm(g.t(), act[a:b] * scale[a:b], out=d_down[e])
                d_act *= scale[a:b]
                sig = torch.sigmoid(gate)
                silu = gate * sig
                d_pre = torch.empty_like(pre[a:b])
                torch.mul(d_act, silu, out=d_pre[:, inner:])
                d_act *= up
                torch.mul(d_act, torch.addcmul(sig, silu, 1 - sig), out=d_pre[:, :inner])
                torch.mm(d_pre.t(), rows[a:b], out=d_gate_up[e])
                torch.mm(d_pre, gate_up[e], out=d_x[a:b])
                a = b
        tokens = len(grad)
        d_weight = d_scale[inverse].view(tokens, ctx.k)
        return d_x[inverse].view(tokens, ctx.k, -1).sum(1), d_weight, None, d_gate_up, d_down


class OutputLoss(torch.autograd.Function):
    """Mean cross-entropy of x @ table.T, chunk by chunk, gradients made on the way."""

    CHUNK = 1024

    @staticmethod
    def forward(ctx, x, table, targets):
        d_x, d_table, total = torch.empty_like(x), torch.zeros_like(table), 0.0
        scale = 1.0 / len(targets)
        for a in range(0, len(x), OutputLoss.CHUNK):
            rows, target = x[a:a + OutputLoss.CHUNK], targets[a:a + OutputLoss.CHUNK]
            logits = torch.log_softmax(rows @ table.t(), 1)
            total -= logits.gather(1, target.unsqueeze(1)).sum()
            probs = logits.exp_()
            probs[torch.arange(len(target)), target] -= 1
            probs *= scale
            torch.mm(probs, table, out=d_x[a:a + OutputLoss.CHUNK])
            d_table.addmm_(probs.t(), rows)
        ctx.save_for_backward(d_x, d_table)
        return total * scale

    @staticmethod
    def backward(ctx, grad):
        d_x, d_table = ctx.saved_tensors
        return d_x * grad, d_table * grad, None


def rotate(x, cos, sin):
    """Apply the rotary embedding to [batch, seq, heads, dim]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    """One decoder layer: attention, then the mixture of experts."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        h, d, inner = c.hidden_size, c.head_dim, c.moe_intermediate_size
        self.input_norm = nn.Parameter(torch.ones(h))
        self.post_norm = nn.Parameter(torch.ones(h))
        self.q_norm = nn.Parameter(torch.ones(d))
        self.k_norm = nn.Parameter(torch.ones(d))
        self.q = nn.Parameter(torch.randn(c.num_attention_heads * d, h) * h ** -0.5)
        self.k = nn.Parameter(torch.randn(c.num_key_value_heads * d, h) * h ** -0.5)
        self.v = nn.Parameter(torch.randn(c.num_key_value_heads * d, h) * h ** -0.5)
        self.o = nn.Parameter(torch.zeros(h, c.num_attention_heads * d))
        self.router = nn.Parameter(torch.randn(c.num_experts, h) * 0.02)
        self.gate_up = nn.Parameter(torch.randn(c.num_experts, 2 * inner, h) * h ** -0.5)
        self.down = nn.Parameter(torch.zeros(c.num_experts, h, inner))

    def attention(self, x, cos, sin):
        c, (batch, seq, _) = self.c, x.shape
        qkv = F.linear(x, torch.cat((self.q, self.k, self.v)))
        nq, nk = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        q, k, v = (t.view(batch, seq, -1, c.head_dim) for t in qkv.split((nq, nk, nk), -1))
        q = rotate(F.rms_norm(q, (c.head_dim,), self.q_norm, c.rms_norm_eps), cos, sin)
        k = rotate(F.rms_norm(k, (c.head_dim,), self.k_norm, c.rms_norm_eps), cos, sin)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                           is_causal=True, enable_gqa=True)
        return F.linear(y.transpose(1, 2).reshape(batch, seq, nq), self.o)

    def forward(self, x, cos, sin):
        c = self.c
        x = x + self.attention(F.rms_norm(x, x.shape[-1:], self.input_norm, c.rms_norm_eps), cos, sin)
        flat = F.rms_norm(x, x.shape[-1:], self.post_norm, c.rms_norm_eps).view(-1, c.hidden_size)
        logits = F.linear(flat, self.router)
        probs = logits.softmax(-1)
        weight, chosen = probs.topk(c.num_experts_per_tok, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        x = x + GroupedExperts.apply(flat, weight, chosen, self.gate_up, self.down).view_as(x)
        load = torch.bincount(chosen.reshape(-1), minlength=c.num_experts) / chosen.numel()
        balance = c.num_experts * (load * probs.mean(0)).sum()
        return x, balance, logits.logsumexp(-1).square().mean(), load


class Model(nn.Module):
    """The whole decoder; forward returns the loss and its parts."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.1)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.full((c.hidden_size,), 0.3))
        half = c.head_dim // 2
        freq = c.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(c.max_position_embeddings, dtype=torch.float64), freq)
        self.register_buffer("cos", angle.cos().float().unsqueeze(1), persistent=False)
        self.register_buffer("sin", angle.sin().float().unsqueeze(1), persistent=False)

    def hidden(self, ids):
        """Return final normalised states, balance and z losses, and loads [layers, experts]."""
        x = F.embedding(ids, self.embed)
        cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
        balance, z, loads = 0.0, 0.0, []
        for layer in self.layers:
            x, b, zz, load = layer(x, cos, sin)
            balance, z = balance + b, z + zz
            loads.append(load)
        n = len(self.layers)
        x = F.rms_norm(x, x.shape[-1:], self.norm, self.c.rms_norm_eps)
        return x, balance / n, z / n, torch.stack(loads)

    def forward(self, ids, targets):
        x, balance, z, loads = self.hidden(ids)
        loss = OutputLoss.apply(x.view(-1, self.c.hidden_size), self.embed, targets.reshape(-1))
        return loss, balance, z, loads

    @torch.no_grad()
    def token_losses(self, ids, targets):
        """Return the cross-entropy (nats) of every target, and the expert loads."""
        x, _, _, loads = self.hidden(ids)
        return F.cross_entropy(F.linear(x, self.embed).flatten(0, 1), targets.flatten(),
                               reduction="none").view_as(targets), loads
