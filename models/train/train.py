"""Train the model until a wall-clock deadline.

Two single-threaded processes share every batch (one per core: small GEMMs and
element-wise work scale better that way than with two threads in one process).
Each takes the next part of the batch when it is free, so that one slow core
does not hold up the other, and gradients are summed through gloo. Hidden matrices are optimised by
Muon, everything else by AdamW; each rank runs Muon for half of the layers and
broadcasts the result. The learning rate warms up, stays, then decays linearly
to zero exactly at the deadline, whatever the speed of the machine.
"""

import argparse
import datetime
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from model import Config, Layer, Model

BLOCK = 1024
MUON = ("q", "k", "v", "o", "gate_up", "down")


class Blocks:
    """Blocks of 1024 tokens of the packed documents, shuffled anew each epoch."""

    def __init__(self, work, seed):
        self.tokens = np.memmap(work / "train.bin", dtype=np.uint16, mode="r")
        self.offsets = np.fromfile(work / "train.idx", dtype=np.int64)
        self.seed, self.epoch = seed, -1

    def load(self, epoch):
        """Pack the documents in a fresh random order."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.offsets) - 1)
        packed = np.concatenate([self.tokens[self.offsets[i]:self.offsets[i + 1]] for i in order])
        self.packed = torch.from_numpy(packed.astype(np.int32))
        self.order = rng.permutation((len(packed) - 1) // BLOCK)
        self.epoch = epoch

    def batch(self, cursor, count, seq):
        """Return (inputs, targets), each [count * BLOCK / seq, seq], and the cursor behind them.

        The cursor counts blocks; a batch does not straddle two epochs.
        """
        if self.epoch < 0:
            self.load(0)
        epoch, first = divmod(cursor, len(self.order))
        if first + count > len(self.order):
            epoch, first = epoch + 1, 0
        if epoch != self.epoch:
            self.load(epoch)
        starts = self.order[first:first + count] * BLOCK
        rows = torch.stack([self.packed[s:s + BLOCK + 1] for s in starts]).long()
        cursor = epoch * len(self.order) + first + count
        return rows[:, :-1].reshape(-1, seq), rows[:, 1:].reshape(-1, seq), cursor


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration: push all singular values of g [n, rows, cols] towards one."""
    flip = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if flip else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x.transpose(1, 2) if flip else x


class Optimiser:
    """Muon for the matrices of the layers this rank owns, AdamW for the rest on every rank."""

    def __init__(self, model, args, rank, world):
        self.args, self.rank, self.world, self.layers = args, rank, world, model.layers
        self.momentum = {(i, n): torch.zeros_like(getattr(layer, n))
                         for i, layer in enumerate(self.layers) if i % world == rank for n in MUON}
        matrices = {id(getattr(layer, n)) for layer in self.layers for n in MUON}
        routers = [layer.router for layer in self.layers]
        matrices |= {id(p) for p in routers}
        others = [p for p in model.parameters() if id(p) not in matrices]
        groups = [{"params": others, "base": args.adam_lr}, {"params": routers, "base": args.router_lr}]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)

    @torch.no_grad()
    def step(self, factor, momentum):
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * factor
        self.adam.step()
        for (i, name), buffer in self.momentum.items():
            p = getattr(self.layers[i], name)
            buffer.lerp_(p.grad, 1 - momentum)
            g = p.grad.lerp(buffer, momentum)
            # gate and up are stored stacked but are separate matrices
            g = g.view(-1, g.shape[1] // 2, g.shape[2]) if name == "gate_up" else g.view(-1, *g.shape[-2:])
            scale = self.args.muon_lr * factor * max(1, g.shape[1] / g.shape[2]) ** 0.5
            p.mul_(1 - self.args.muon_lr * factor * self.args.weight_decay)
            p.add_(orthogonalise(g).reshape(p.shape), alpha=-scale)
        if self.world > 1:
            for i, layer in enumerate(self.layers):
                flat = torch.cat([getattr(layer, n).flatten() for n in MUON])
                dist.broadcast(flat, src=i % self.world)
                for n, part in zip(MUON, flat.split([getattr(layer, n).numel() for n in MUON])):
                    getattr(layer, n).copy_(part.view_as(getattr(layer, n)))

    def state(self):
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load(self, state):
        bases = [group["base"] for group in self.adam.param_groups]
        self.adam.load_state_dict(state["adam"])
        for group, base in zip(self.adam.param_groups, bases):
            group["base"] = base  # the rates of this run, not of the one that was interrupted
        for key, value in state["momentum"].items():
            self.momentum[key].copy_(value)


def schedule(progress, step, args):
    """Learning-rate factor: linear warm-up by step, then by the clock stable and linear decay to zero."""
    return min(1.0, (step + 1) / args.warmup) * min(1.0, max(0.0, (1.0 - progress) / args.decay))


def deadline(text):
    """Turn HH:MM of today into seconds since the epoch."""
    hour, minute = map(int, text.split(":"))
    return datetime.datetime.now().replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()


def save(path, model, optimiser, step, cursor, started, args, rank):
    """Write this rank's part of a checkpoint atomically (rank 0 also holds the weights)."""
    state = {"optimiser": optimiser.state(), "step": step, "cursor": cursor, "elapsed": time.time() - started}
    if rank == 0:
        state.update(model=model.state_dict(), config=model.c.dict(), args=vars(args) | {"work": str(args.work)})
    part = path.with_name(f"{path.name}.rank{rank}")
    torch.save(state, f"{part}.tmp")
    os.replace(f"{part}.tmp", part)


def validate(model, work, blocks):
    """Loss in nats a token on blocks spread over the packed validation split."""
    tokens = torch.from_numpy(np.fromfile(work / "validation.bin", dtype=np.uint16).astype(np.int64))
    pick = torch.linspace(0, len(tokens) - BLOCK - 1, blocks).long()
    total = 0.0
    for s in pick:
        losses, _ = model.token_losses(tokens[None, s:s + BLOCK], tokens[None, s + 1:s + BLOCK + 1])
        total += losses.mean().item()
    return total / blocks


def claim(counter):
    """Take the number of the next unclaimed part of the batch."""
    with counter.get_lock():
        counter.value += 1
        return counter.value - 1


def worker(rank, world, args, counter):
    """The training loop of one process."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{args.port}", rank=rank, world_size=world,
                                timeout=datetime.timedelta(hours=2))
    torch.manual_seed(args.seed)
    if args.compile:
        Layer.attention = torch.compile(Layer.attention, dynamic=False)
    model = Model(Config(vocab_size=args.vocab))
    optimiser = Optimiser(model, args, rank, world)
    blocks, step, cursor, started = Blocks(args.work, args.seed), 0, 0, time.time()
    checkpoint = args.work / "checkpoint.pt"
    if args.resume:
        mine = torch.load(f"{checkpoint}.rank{rank}", weights_only=False)
        whole = mine if rank == 0 else torch.load(f"{checkpoint}.rank0", weights_only=False)
        model.load_state_dict(whole["model"])
        optimiser.load(mine["optimiser"])
        step, cursor, started = whole["step"], whole["cursor"], time.time() - whole["elapsed"]
    end = deadline(args.until) if args.until else started + args.seconds
    log = open(args.work / "train.log", "a") if rank == 0 else None
    saved = last = time.time()
    counted = cursor
    while True:
        # every rank must take the same decisions, so rank 0's clock rules
        if rank == 0:
            counter.value = 0
        clock = torch.tensor([time.time(), float(time.time() - saved > args.save_every)], dtype=torch.float64)
        if world > 1:
            dist.broadcast(clock, src=0)
        progress = (clock[0].item() - started) / (end - started)
        if progress >= 1 or step == args.max_steps:
            break
        seq = 512 if progress < args.long_from else BLOCK
        ids, targets, cursor = blocks.batch(cursor, args.blocks, seq)
        rows = args.micro * BLOCK // seq
        parts = list(zip(ids.split(rows), targets.split(rows)))
        count, sums, load = len(parts), torch.zeros(3), torch.zeros(model.c.num_hidden_layers, model.c.num_experts)
        while (i := claim(counter)) < count:
            x, y = parts[i]
            loss, balance, z, loads = model(x, y)
            ((loss + args.balance * balance + args.z_loss * z) / count).backward()
            sums += torch.stack((loss.detach(), balance.detach(), z.detach())) / count
            load = load + loads / count
        if world > 1:
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
            flat = torch.cat([g.flatten() for g in grads] + [sums, load.flatten()])
            dist.all_reduce(flat)
            parts = flat.split([p.numel() for p in model.parameters()] + [3, load.numel()])
            for p, part in zip(model.parameters(), parts):
                p.grad = part.view_as(p)
            sums, load = parts[-2], parts[-1].view_as(load)
        factor = schedule(progress, step, args)
        optimiser.step(factor, min(0.95, 0.85 + 0.1 * step / 300))
        model.zero_grad(set_to_none=True)
        step += 1
        if rank == 0 and (step % 10 == 0 or step < 5):
            now, sums = time.time(), sums.tolist()
            speed = (cursor - counted) * BLOCK / (now - last)
            last, counted = now, cursor
            log.write(json.dumps({"step": step, "loss": round(sums[0], 4), "balance": round(sums[1], 4),
                                  "z": round(sums[2], 3), "min_load": round(load.min().item(), 4),
                                  "lr": round(factor, 4), "progress": round(progress, 4),
                                  "tokens": cursor * BLOCK, "tok/s": round(speed)}) + "\n")
            log.flush()
        if clock[1] > 0:
            save(checkpoint, model, optimiser, step, cursor, started, args, rank)
            saved = time.time()
            if rank == 0:
                log.write(json.dumps({"step": step, "validation_loss": round(validate(model, args.work, 24), 4)}) + "\n")
                last = time.time()
    save(checkpoint, model, optimiser, step, cursor, started, args, rank)
    if rank == 0:
        log.write(json.dumps({"done": step, "validation_loss": round(validate(model, args.work, 96), 4)}) + "\n")
        log.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build"))
    parser.add_argument("--until", help="HH:MM today at which the decay ends")
    parser.add_argument("--seconds", type=float, default=5700, help="length of the run where --until is not given")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--save-every", type=float, default=600, help="seconds between checkpoints")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=29511)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=6144)
    parser.add_argument("--blocks", type=int, default=8, help="blocks of 1024 tokens in a batch, all workers together")
    parser.add_argument("--micro", type=int, default=2, help="blocks in one forward pass")
    parser.add_argument("--muon-lr", type=float, default=0.006)
    parser.add_argument("--adam-lr", type=float, default=0.002)
    parser.add_argument("--router-lr", type=float, default=0.0005)
    parser.add_argument("--weight-decay", type=float, default=0.2)
    parser.add_argument("--balance", type=float, default=0.02)
    parser.add_argument("--z-loss", type=float, default=0.0003)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--decay", type=float, default=0.5, help="share of the time in which the rate decays")
    parser.add_argument("--long-from", type=float, default=0.87, help="progress from which sequences are 1024 long")
    args = parser.parse_args()
    counter = mp.get_context("spawn").Value("i", 0)
    if args.workers == 1:
        worker(0, 1, args, counter)
    else:
        mp.spawn(worker, (args.workers, args, counter), nprocs=args.workers)


if __name__ == "__main__":
    main()
