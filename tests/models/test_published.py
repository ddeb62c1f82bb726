"""GPT-2, BERT and residual networks against the same formulas written with PyTorch, by the published state keys.

The oracles were themselves held against transformers and torchvision, to 1e-14 in float64 (November 2026); those are no
dependencies of the tests.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import models, nn, safetensors

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.torch
TF: Any = torch.nn.functional
State = dict[str, Any]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _session(request: pytest.FixtureRequest) -> Any:
    """A session, and random numbers that depend on the test alone, not on those before it."""
    RNG.bit_generator.state = np.random.default_rng(zlib.crc32(request.node.name.encode())).bit_generator.state
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def _close(a: Any, b: Any, what: str = "") -> None:
    assert a.shape == tuple(b.shape), what
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=what)


def _random_state(model: nn.Module) -> State:
    """Random parameters in the model; the same as PyTorch's, one tensor for each variable however many names it has."""
    seen: dict[int, Any] = {}
    state: State = {}
    for name, variable in model._state():
        if id(variable) not in seen:
            value = RNG.normal(size=variable.shape) * 0.5
            if name.endswith("running_var"):
                value = np.abs(value) + 0.5
            seen[id(variable)] = torch.tensor(value, requires_grad=isinstance(variable, nn.Parameter))
        state[name] = seen[id(variable)]
    model.load_state_dict({name: x.detach().numpy() for name, x in state.items() if "num_batches" not in name} | {
        name: np.zeros(()) for name in state if "num_batches" in name
    })  # fmt: skip
    return state


def _same_gradients(model: nn.Module, state: State, found: tg.Tensor, wanted: Any) -> None:
    _close(found.numpy(), wanted.detach(), "output")
    g = RNG.normal(size=tuple(wanted.shape))
    (found * tg.asarray(g)).sum().backward()
    (wanted * torch.tensor(g)).sum().backward()
    for name, parameter in model.named_parameters():
        other = state[name].grad
        if other is not None:
            scale = max(1.0, float(other.abs().max()))
            _close(parameter.grad.numpy() / scale, other / scale, name)  # type: ignore[union-attr]


def _norm(x: Any, s: Mapping[str, Any], name: str, eps: float) -> Any:
    return TF.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps)


def _heads(x: Any, heads: int) -> Any:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


# ---- GPT-2

GPT2 = models.GPT2Config(vocab_size=31, n_positions=12, n_embd=12, n_layer=2, n_head=3)


def gpt2(s: State, ids: Any, attention_mask: Any = None) -> Any:
    x = s["transformer.wte.weight"][ids] + s["transformer.wpe.weight"][: ids.shape[1]]
    for i in range(GPT2.n_layer):
        p = f"transformer.h.{i}"
        h = _norm(x, s, f"{p}.ln_1", 1e-5) @ s[f"{p}.attn.c_attn.weight"] + s[f"{p}.attn.c_attn.bias"]
        q, k, v = (_heads(part, GPT2.n_head) for part in h.chunk(3, dim=-1))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        may = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        may = may if attention_mask is None else may & attention_mask[:, None, None, :].bool()
        h = scores.masked_fill(~may, -math.inf).softmax(-1) @ v
        x = x + h.transpose(1, 2).flatten(-2) @ s[f"{p}.attn.c_proj.weight"] + s[f"{p}.attn.c_proj.bias"]
        h = _norm(x, s, f"{p}.ln_2", 1e-5) @ s[f"{p}.mlp.c_fc.weight"] + s[f"{p}.mlp.c_fc.bias"]
        x = x + TF.gelu(h, approximate="tanh") @ s[f"{p}.mlp.c_proj.weight"] + s[f"{p}.mlp.c_proj.bias"]
    return _norm(x, s, "transformer.ln_f", 1e-5) @ s["lm_head.weight"].T


def test_gpt2_is_gpt2() -> None:
    model = models.GPT2LMHeadModel(GPT2, dtype=tg.float64).eval()
    state, ids = _random_state(model), RNG.integers(0, 31, (3, 10))

    _same_gradients(model, state, model(tg.asarray(ids)), gpt2(state, torch.tensor(ids)))
    loss = model.loss(tg.asarray(ids)).item()
    wanted = TF.cross_entropy(gpt2(state, torch.tensor(ids))[:, :-1].flatten(0, 1), torch.tensor(ids[:, 1:]).flatten())
    assert abs(loss - wanted.item()) < 1e-10

    mask = np.ones((3, 10), np.int64)
    mask[1, 7:] = 0
    found = model(tg.asarray(ids), tg.asarray(mask)).numpy()
    _close(found[mask == 1], gpt2(state, torch.tensor(ids), torch.tensor(mask)).detach().numpy()[mask == 1])


@pytest.mark.slow
def test_gpt2_writes_what_follows() -> None:
    model = models.GPT2LMHeadModel(GPT2, dtype=tg.float64).eval()
    state, ids = _random_state(model), RNG.integers(0, 31, (2, 4))
    model.transformer.drop.train()

    found = model.generate(tg.asarray(ids), max_new_tokens=8).numpy()

    wanted = torch.tensor(ids)
    for _ in range(8):
        wanted = torch.cat([wanted, gpt2(state, wanted)[:, -1].argmax(-1, keepdim=True)], dim=1)
    np.testing.assert_array_equal(found, wanted.numpy())
    for given, more in ((4, 0), (4, 1), (1, 11), (11, 1)):
        some = model.generate(tg.asarray(wanted.numpy()[:, :given]), more).numpy()
        assert some.shape == (2, given + more)
        if given >= 4:
            np.testing.assert_array_equal(some, wanted.numpy()[:, : given + more])
    assert model.transformer.drop.training, "each module has the mode that it had"
    assert not model.training


def test_a_token_that_goes_on_from_what_was_seen_has_the_features_of_the_whole_text() -> None:
    from telegrad.models.gpt2 import Past

    model = models.GPT2Model(GPT2, dtype=tg.float64).eval()
    _random_state(model)
    ids, place, places = RNG.integers(0, 31, (2, 7)), 4, tg.arange(7)
    whole, seen = model.seeing(tg.asarray(ids), places, None)
    is_later = (places > place).unsqueeze(1)  # whatever stands there
    kept = [tuple(tg.where(is_later, 9.0, x) for x in each) for each in seen]

    is_here = (places == place).unsqueeze(1)
    pasts = [Past((tg.where(is_here, 7.0, k), tg.where(is_here, 8.0, v)), is_here) for k, v in kept]
    token, at = tg.asarray(ids[:, place : place + 1]), tg.asarray([place])
    found, after = model.seeing(token, at, (places <= place).unsqueeze(0), pasts)

    _close(found[:, 0].numpy(), whole[:, place].numpy())
    for (k, v), (a, b) in zip(after, kept, strict=True):
        _close(k.numpy(), a.numpy())
        _close(v.numpy(), b.numpy())


def test_what_is_written_likeliest_first_has_the_scores_of_the_whole_text() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state  # weights with which texts go on changing
    config = models.GPT2Config(vocab_size=31, n_positions=40, n_embd=12, n_layer=2, n_head=3)
    model = models.GPT2LMHeadModel(config, dtype=tg.float64).eval()
    _random_state(model)
    model.transformer.ln_f.bias.assign(np.zeros(12))  # which would make one token the likeliest everywhere
    for block in model.transformer.h:  # what was seen counts for what is likeliest, beside the token itself
        block.attn.c_proj.weight.assign(4 * block.attn.c_proj.weight.numpy())
    written = model.generate(tg.asarray(RNG.integers(0, 31, (32, 3))), 37)

    scores = model(written).numpy()[:, 2:-1]

    np.testing.assert_array_equal(scores.argmax(-1), written.numpy()[:, 3:])
    assert (np.diff(written.numpy()[:, 3:]) != 0).mean() > 0.3, "else nothing is tested"


def test_gpt2_draws_by_the_scores() -> None:
    model = models.GPT2LMHeadModel(GPT2, dtype=tg.float64)
    state, ids = _random_state(model), np.repeat([[1, 2, 3]], 4000, axis=0)
    for variable in (model.transformer.wte.weight,):
        variable.assign(variable.numpy() * 0.2)
    state["lm_head.weight"].data *= 0.2
    scores = gpt2(state | {"transformer.wte.weight": state["lm_head.weight"]}, torch.tensor(ids[:1]))[0, -1].detach()

    for top_k in (None, 5):
        drawn = model.generate(tg.asarray(ids), 1, temperature=0.7, top_k=top_k).numpy()[:, -1]
        least = scores.topk(top_k or 31)[0][-1]
        wanted = (scores / 0.7).masked_fill(scores < least, -math.inf).softmax(-1).numpy()
        share = np.bincount(drawn, minlength=31) / len(drawn)
        assert np.abs(share - wanted).max() < 0.04
        assert (share[wanted == 0] == 0).all()


def test_gpt2s_initial_values_are_those_of_the_paper() -> None:
    config = models.GPT2Config(vocab_size=50, n_positions=40, n_embd=64, n_layer=8, n_head=4)
    state = models.GPT2LMHeadModel(config).state_dict()

    assert abs(state["transformer.h.3.attn.c_attn.weight"].std() / 0.02 - 1) < 0.05
    assert abs(state["transformer.h.3.mlp.c_proj.weight"].std() / (0.02 / 4) - 1) < 0.05
    assert state["transformer.h.3.mlp.c_proj.bias"].any() == 0
    assert state["transformer.ln_f.weight"].all() == 1
    assert state["lm_head.weight"].shape == (50, 64)


# ---- BERT

BERT = models.BertConfig(
    vocab_size=29, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
    max_position_embeddings=11,
)  # fmt: skip


def bert(s: State, ids: Any, attention_mask: Any, segments: Any, prefix: str = "bert.") -> tuple[Any, Any]:
    def linear(x: Any, name: str) -> Any:
        return TF.linear(x, s[f"{prefix}{name}.weight"], s[f"{prefix}{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return _norm(x, s, prefix + name, 1e-12)

    tables = [s[f"{prefix}embeddings.{n}_embeddings.weight"] for n in ("word", "position", "token_type")]
    x = norm(tables[0][ids] + tables[1][: ids.shape[1]] + tables[2][segments], "embeddings.LayerNorm")
    for i in range(BERT.num_hidden_layers):
        p = f"encoder.layer.{i}"
        q, k, v = (_heads(linear(x, f"{p}.attention.self.{n}"), 3) for n in ("query", "key", "value"))
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~attention_mask[:, None, None, :].bool(), -math.inf)
        h = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        x = norm(x + linear(h, f"{p}.attention.output.dense"), f"{p}.attention.output.LayerNorm")
        h = TF.gelu(linear(x, f"{p}.intermediate.dense"))
        x = norm(x + linear(h, f"{p}.output.dense"), f"{p}.output.LayerNorm")
    return x, torch.tanh(linear(x[:, 0], "pooler.dense")) if f"{prefix}pooler.dense.weight" in s else None


def token_scores(s: State, x: Any) -> Any:
    p = "cls.predictions"
    h = TF.gelu(TF.linear(x, s[f"{p}.transform.dense.weight"], s[f"{p}.transform.dense.bias"]))
    return TF.linear(_norm(h, s, f"{p}.transform.LayerNorm", 1e-12), s[f"{p}.decoder.weight"], s[f"{p}.bias"])


def _texts() -> tuple[Any, Any, Any]:
    ids, mask = RNG.integers(1, 29, (3, 9)), np.ones((3, 9), np.int64)
    mask[1, 6:] = 0
    return ids, mask, np.broadcast_to((np.arange(9) > 4).astype(np.int64), (3, 9)).copy()


def test_bert_is_bert() -> None:
    texts = _texts()
    ids = texts[0]
    given, yours = [tg.asarray(x) for x in texts], [torch.tensor(x) for x in texts]

    model = models.BertForPreTraining(BERT, dtype=tg.float64).eval()
    state = _random_state(model)
    tokens, follows = model(*given)
    x, pooled = bert(state, *yours)
    wanted = TF.linear(pooled, state["cls.seq_relationship.weight"], state["cls.seq_relationship.bias"])
    _close(follows.numpy(), wanted.detach())
    _same_gradients(model, state, tokens, token_scores(state, x))

    labels, order = np.where(RNG.uniform(size=(3, 9)) < 0.4, ids, -100), np.array([0, 1, 1])
    loss = model.loss(given[0], tg.asarray(labels), tg.asarray(order), attention_mask=given[1], token_type_ids=given[2])
    both = TF.cross_entropy(token_scores(state, x).flatten(0, 1), torch.tensor(labels).flatten()) + TF.cross_entropy(
        wanted, torch.tensor(order)
    )
    assert abs(loss.item() - both.item()) < 1e-10


@pytest.mark.slow
def test_berts_other_heads_are_those_of_bert() -> None:
    texts = _texts()
    given, yours = [tg.asarray(x) for x in texts], [torch.tensor(x) for x in texts]

    masked = models.BertForMaskedLM(BERT, dtype=tg.float64).eval()
    state = _random_state(masked)
    assert not any("pooler" in name for name in state)
    _same_gradients(masked, state, masked(*given), token_scores(state, bert(state, *yours)[0]))

    classes = models.BertForSequenceClassification(BERT, num_labels=4, dtype=tg.float64).eval()
    state = _random_state(classes)
    wanted = TF.linear(bert(state, *yours)[1], state["classifier.weight"], state["classifier.bias"])
    _same_gradients(classes, state, classes(*given), wanted)

    plain = models.BertModel(BERT, dtype=tg.float64).eval()
    state = _random_state(plain)
    _close(plain(*given)[0].numpy(), bert(state, *yours, prefix="")[0].detach())
    assert models.BertModel(BERT).embeddings.word_embeddings.weight.numpy()[0].any() == 0


# ---- residual networks


def _normed(s: State, x: Any, name: str, training: bool) -> Any:
    mean, var = s[f"{name}.running_mean"].detach().clone(), s[f"{name}.running_var"].detach().clone()
    return TF.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"], training)


def _convolved(s: State, x: Any, name: str, stride: int) -> Any:
    w = s[f"{name}.weight"]
    return TF.conv2d(x, w, None, stride, w.shape[-1] // 2, 1, x.shape[1] // w.shape[1])


def residual_block(s: State, x: Any, p: str, stride: int, training: bool) -> Any:
    """By the keys alone: what is there says what the block is."""
    is_wide = f"{p}conv3.weight" in s
    h = _normed(s, _convolved(s, x, f"{p}conv1", 1 if is_wide else stride), f"{p}bn1", training).relu()
    h = _normed(s, _convolved(s, h, f"{p}conv2", stride if is_wide else 1), f"{p}bn2", training)
    if is_wide:
        h = _normed(s, _convolved(s, h.relu(), f"{p}conv3", 1), f"{p}bn3", training)
    if f"{p}downsample.0.weight" in s:
        x = _normed(s, _convolved(s, x, f"{p}downsample.0", stride), f"{p}downsample.1", training)
    return (h + x).relu()


def resnet(s: State, x: Any, training: bool) -> Any:
    x = TF.max_pool2d(_normed(s, _convolved(s, x, "conv1", 2), "bn1", training).relu(), 3, 2, 1)
    for layer in range(1, 5):
        for i in range(sum(name.startswith(f"layer{layer}.") and name.endswith(".conv1.weight") for name in s)):
            x = residual_block(s, x, f"layer{layer}.{i}.", 2 if i == 0 and layer > 1 else 1, training)
    return TF.linear(x.mean((2, 3)), s["fc.weight"], s["fc.bias"])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("block", "groups", "width"), [("BasicBlock", 1, 64), ("Bottleneck", 1, 64),
                                                        ("Bottleneck", 4, 32)])  # fmt: skip
def test_a_block_is_torchvisions(block: str, groups: int, width: int, stride: int) -> None:
    kind = getattr(models.resnet, block)
    outputs = 8 * kind.expansion
    inputs = outputs if stride == 1 else 6
    down = None
    if stride != 1:
        down = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False, dtype=tg.float64),
            nn.BatchNorm2d(outputs, dtype=tg.float64),
        )
    model = kind(inputs, 8, stride, down, groups, width, tg.float64)
    state, x = _random_state(model), RNG.normal(size=(2, inputs, 6, 5))

    for training in (False, True):
        model.train(training)
        wanted = residual_block(state, torch.tensor(x), "", stride, training)
        _same_gradients(model, state, model(tg.asarray(x)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"), [("resnet18", 11.69), ("resnet34", 21.80), ("resnet50", 25.56), ("resnext50_32x4d", 25.03)]
)
def test_a_residual_network_is_torchvisions(name: str, millions: float) -> None:
    model = getattr(models, name)()
    assert round(sum(p.size for p in model.parameters()) / 1e6, 2) == millions
    state = {key: torch.tensor(x) for key, x in model.state_dict().items()}
    x = RNG.normal(size=(2, 3, 64, 64)).astype(np.float32)

    found = model.eval()(tg.asarray(x)).numpy()

    np.testing.assert_allclose(found, resnet(state, torch.tensor(x), training=False).numpy(), rtol=1e-3, atol=1e-3)


# ---- checkpoints


def test_published_names_lead_to_the_model(tmp_path: Path) -> None:
    model = models.GPT2LMHeadModel(GPT2, dtype=tg.float64)
    state = {name: x.detach().numpy() for name, x in _random_state(model).items() if name != "lm_head.weight"}
    bare = {name.removeprefix("transformer."): x for name, x in state.items()}
    masks = {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 12, 12))) for i in range(2)}  # as in the file of "gpt2"
    safetensors.save_file(bare | masks, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({
        "vocab_size": 31, "n_positions": 12, "n_embd": 12, "n_layer": 2, "n_head": 3, "model_type": "gpt2",
    }))  # fmt: skip

    config = models.load_config(models.GPT2Config, tmp_path)
    other = models.GPT2LMHeadModel(config, dtype=tg.float64)
    assert config == GPT2
    assert models.load_pretrained(other, tmp_path) == ([], [])
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array, err_msg=name)

    safetensors.save_model(other, tmp_path / "model.safetensors")
    base = models.GPT2Model(config, dtype=tg.float64)
    assert models.load_pretrained(base, tmp_path / "model.safetensors") == ([], [])
    np.testing.assert_array_equal(base.wte.weight.numpy(), model.lm_head.weight.numpy())


def test_a_checkpoint_in_pieces_with_old_names_is_put_together(tmp_path: Path) -> None:
    model = models.BertForMaskedLM(BERT, dtype=tg.float64)
    state = {name: x.detach().numpy() for name, x in _random_state(model).items()}
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in state.items()
        if not name.startswith("cls.predictions.decoder")
    }
    old["bert.embeddings.position_ids"] = np.arange(11)
    names = sorted(old)
    pieces = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in pieces.items():
        safetensors.save_file({name: old[name] for name in some}, tmp_path / file)
    index = {"weight_map": {name: file for file, some in pieces.items() for name in some}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    other = models.BertForMaskedLM(BERT, dtype=tg.float64)

    assert models.load_pretrained(other, tmp_path) == ([], [])

    for name, array in state.items():
        np.testing.assert_array_equal(other.state_dict()[name], array, err_msg=name)
    classes = models.BertForSequenceClassification(BERT)
    with pytest.raises(tg.TelegradError, match=r"lacks \['bert.pooler.dense.bias'.*strict=False"):
        models.load_pretrained(classes, tmp_path)
    missing, unexpected = models.load_pretrained(classes, tmp_path, strict=False)
    assert "classifier.weight" in missing
    assert all(name.startswith("cls.") for name in unexpected)


def test_what_a_model_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def config(kind: type[Any], text: str) -> Any:
        (tmp_path / "config.json").write_text(text)
        return models.load_config(kind, tmp_path)

    def index(text: str) -> Any:
        (tmp_path / "model.safetensors.index.json").write_text(text)
        return models.load_pretrained(nn.Linear(2, 3), tmp_path)

    gpt, ids = models.GPT2LMHeadModel(GPT2), tg.zeros((2, 13), dtype=tg.int64)
    for make, words in (
        (lambda: config(models.GPT2Config, '{"scale_attn_by_inverse_layer_idx": true}'), "scale_attn_by_inverse"),
        (lambda: config(models.BertConfig, '{"position_embedding_type": "relative_key"}'), "position_embedding_type"),
        (lambda: config(models.BertConfig, "[]"), "no JSON object"),
        (lambda: config(models.BertConfig, "{"), "no JSON"),
        (lambda: index('{"weight_map": {"a": "../../etc/a.safetensors"}}'), "files beside it"),
        (lambda: index("{}"), "files beside it"),
        (lambda: models.GPT2Model(models.GPT2Config(n_embd=10, n_head=3)), "divisible into 3 heads"),
        (lambda: models.GPT2Model(models.GPT2Config(8, 8, 8, 1, 2, activation_function="swish7")), "swish7"),
        (lambda: gpt(ids), "at most 12"),
        (lambda: gpt.generate(ids[:, :4], 9), "12 at most"),
        (lambda: gpt.generate(ids[:, :4], 2, temperature=-1.0), "must not be negative"),
        (lambda: models.BertModel(BERT)(ids), "at most 11"),
        (lambda: models.BertModel(models.BertConfig(hidden_size=10, num_attention_heads=3)), "divisible"),
        (lambda: models.ResNet(models.resnet.BasicBlock, (1, 1, 1, 1), groups=2), "Bottleneck"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()
