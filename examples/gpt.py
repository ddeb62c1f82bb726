"""Train a small GPT-2 on the Python documentation, byte by byte; save it, load it again, and let it write.

python examples/gpt.py                          # the server inside this process
python examples/gpt.py grpc://127.0.0.1:50051   # a telegrad-server
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pydoc_data.topics import topics

import numpy as np
import telegrad as tg
from telegrad import models, optim, safetensors

LENGTH, BATCH, STEPS = 48, 16, 200
CONFIG = models.GPT2Config(
    vocab_size=128, n_positions=96, n_embd=96, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
)


def grouped(model: models.GPT2LMHeadModel) -> list[dict[str, object]]:
    """Weights decay, biases and norms do not."""
    named = list(model.named_parameters())
    return [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
    ]


def main(address: str | None) -> None:
    """Train, print the loss, and write a few lines."""
    text = "\n".join(topics.values()).encode("ascii", "replace")
    with tg.connect(address, seed=0):
        model = models.GPT2LMHeadModel(CONFIG)
        optimizer = optim.AdamW(grouped(model), lr=optim.lr_scheduler.OneCycleLR(3e-3, total_steps=STEPS))
        data = tg.asarray(np.frombuffer(text, np.uint8).astype(np.int32))  # uploaded once

        @tg.function
        def train_step(starts: tg.Tensor) -> tg.Tensor:
            loss = model.loss(data[starts.unsqueeze(1) + tg.arange(LENGTH + 1)])
            optimizer.minimize(loss)
            return loss

        rng, start = np.random.default_rng(0), time.perf_counter()
        for step in range(1, STEPS + 1):
            loss = train_step(rng.integers(0, len(text) - LENGTH - 1, BATCH))
            if step % 50 == 0:
                value = loss.item()  # waits for the step
                speed = step * BATCH * LENGTH / (time.perf_counter() - start)
                print(f"step {step}: loss {value:.3f}, {speed:,.0f} tokens/s")

        with tempfile.TemporaryDirectory() as folder:  # the file's names are those of Hugging Face's GPT-2
            path = os.path.join(folder, "model.safetensors")
            safetensors.save_model(model, path)
            model = models.GPT2LMHeadModel(CONFIG)
            models.load_pretrained(model, path)
        prompt = tg.asarray(np.frombuffer(b"The statement ", np.uint8).astype(np.int32)[None])
        written = model.generate(prompt, max_new_tokens=64, temperature=0.6, top_k=20)
        print(bytes(written.numpy()[0].astype(np.uint8)).decode())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
