"""Train a small GPT-2 on Python's own documentation, byte by byte, as a job; then let it write.

python examples/gpt.py                                    # the server inside this process
python examples/gpt.py --server grpc://127.0.0.1:50051    # a telegrad-server with --data-dir
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import telegrad as tg
from telegrad import models, optim, safetensors

LENGTH = 64
CONFIG = models.GPT2Config(
    vocab_size=128, n_positions=160, n_embd=96, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
)


def grouped(model: models.GPT2LMHeadModel) -> list[dict[str, object]]:
    """Weights decay, biases and norms do not."""
    named = list(model.named_parameters())
    return [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
    ]


def main(server: str | None, steps: int, save: str | None) -> None:
    """Submit, watch, take the weights, and write a few lines."""
    text = "\n".join(topics.values()).encode("ascii", "replace")
    rows = np.frombuffer(text, np.uint8)[: len(text) // LENGTH * LENGTH].reshape(-1, LENGTH)
    with tg.connect(server, seed=0) as session:
        model = models.GPT2LMHeadModel(CONFIG)
        optimizer = optim.AdamW(grouped(model), lr=optim.lr_scheduler.OneCycleLR(3e-3, total_steps=steps))

        def train_step(text: tg.Tensor) -> tg.Tensor:
            loss = model.loss(text.astype(tg.int32))
            optimizer.minimize(loss)
            return loss

        job = session.submit(
            train_step,
            data={"text": rows},
            steps=steps,
            batch_size=16,
            checkpoint_every=100,
            record_every=10,
        )
        job.watch().check()
        loss = job.history["loss"]
        print(f"loss {loss['value'][0]:.3f} at step {loss['step'][0]}, {loss['value'][-1]:.3f} at {loss['step'][-1]}")

        job.load_state(model)
        if save is not None:  # the file's names are those of Hugging Face's GPT-2
            safetensors.save_model(model, save)
            print(f"{save}: {Path(save).stat().st_size:,} bytes")
        prompt = tg.asarray(np.frombuffer(b"The statement ", np.uint8).astype(np.int32)[None])
        written = model.generate(prompt, max_new_tokens=100, temperature=0.6, top_k=20)
        print(bytes(written.numpy()[0].astype(np.uint8)).decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--save", metavar="FILE", help="write the model to this safetensors file")
    main(**vars(parser.parse_args()))
