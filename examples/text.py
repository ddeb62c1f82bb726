"""Train a small language model on the Python documentation's text, letter by letter, and let it write.

python examples/text.py                          # the server inside this process
python examples/text.py grpc://127.0.0.1:50051   # a telegrad-server
"""

from __future__ import annotations

import sys
import time
from pydoc_data.topics import topics

import numpy as np
import telegrad as tg
from telegrad import nn, optim

LENGTH, BATCH, WIDTH, HEADS, LAYERS, STEPS = 32, 16, 64, 4, 2, 200


class Writer(nn.Module):
    """Letters seen so far -> scores of the next, at each place."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH))
        self.scores = nn.Linear(WIDTH, letters)

    def forward(self, text: tg.Tensor) -> tg.Tensor:
        """text[batch, length] -> scores[batch, length, letters]."""
        length = text.shape[-1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.letters(text) + self.places(tg.arange(length))
        return self.scores(self.layers(x, mask, is_causal=True))


def main(address: str | None) -> None:
    """Train, print the loss, and write a line."""
    text = "\n".join(topics.values())
    alphabet = sorted(set(text))
    numbers = np.array([alphabet.index(c) for c in text], np.int32)
    with tg.connect(address, seed=0):
        model = Writer(len(alphabet))
        optimizer = optim.AdamW(model.parameters(), lr=optim.lr_scheduler.OneCycleLR(3e-3, total_steps=STEPS))
        data = tg.asarray(numbers)  # uploaded once

        @tg.function
        def train_step(starts: tg.Tensor) -> tg.Tensor:
            window = data[tg.expand_dims(starts, axis=1) + tg.arange(LENGTH + 1)]
            scores = model(window[:, :-1])
            loss = nn.functional.cross_entropy(scores.reshape((-1, len(alphabet))), window[:, 1:].flatten())
            optimizer.minimize(loss)
            return loss

        @tg.function
        def following(window: tg.Tensor) -> tg.Tensor:
            return model(window)[0, -1].argmax()

        rng, start = np.random.default_rng(0), time.perf_counter()
        for step in range(STEPS):
            loss = train_step(rng.integers(0, len(numbers) - LENGTH, BATCH))
            if step % 50 == 49:
                print(
                    f"step {step + 1}: loss {loss.item():.3f}, {(step + 1) / (time.perf_counter() - start):.0f} steps/s"
                )
        written = list(numbers[:LENGTH])
        for _ in range(60):
            written.append(int(following(np.array([written[-LENGTH:]], np.int32)).item()))
        print("".join(alphabet[n] for n in written))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
