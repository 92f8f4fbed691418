#!/usr/bin/env python3
"""Whisper's weights from CTranslate2's format (model.bin, tokenizer.json) into ggml's, eight bits a weight.

    ggml.py DIRECTORY OUT
"""

import json
import struct
import sys

import numpy as np

KINDS = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
MAGIC, F32, F16, Q8_0 = 0x67676D6C, 0, 1, 8
FTYPE = 2007  # Q8_0, second version of quantisation
MELS, FFT, RATE, CONTEXT = 80, 400, 16000, 1500
BLOCK = 32


def read(path):
    with open(path, "rb") as f:
        def number(kind):
            return struct.unpack("<" + kind, f.read(struct.calcsize(kind)))[0]

        def text():
            return f.read(number("H"))[:-1].decode()

        number("I"), text(), number("I")
        found = {}
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            kind = KINDS[number("B")]
            found[name] = np.frombuffer(f.read(number("I")), kind).reshape(shape)
        for _ in range(number("I")):
            alias = text()
            found[alias] = found[text()]
    return found


class Tensors(dict):
    """ggml's names, from CTranslate2's."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def of(self, name):
        value = self.found[name]
        if value.dtype == np.int8:
            scale = self.found[name + "_scale"].reshape(-1, *([1] * (value.ndim - 1)))
            value = value.astype(np.float32) / scale
        return value.astype(np.float32)

    def norm(self, to, source):
        self[to + ".weight"], self[to + ".bias"] = self.of(source + "/gamma"), self.of(source + "/beta")

    def linear(self, to, source):
        self[to + ".weight"], self[to + ".bias"] = self.of(source + "/weight"), self.of(source + "/bias")

    def parts(self, to, source, names):
        weights, biases = self.of(source + "/weight"), self.of(source + "/bias")
        size = len(weights) // len(names)
        for i, name in enumerate(names):
            self[f"{to}.{name}.weight"] = weights[i * size : (i + 1) * size]
            # Whisper's keys have no bias.
            if name != "key":
                self[f"{to}.{name}.bias"] = biases[i * size : (i + 1) * size]

    def fill(self):
        for i in (1, 2):
            self.linear(f"encoder.conv{i}", f"encoder/conv{i}")
        self["encoder.positional_embedding"] = self.of("encoder/position_encodings/encodings")
        self["decoder.positional_embedding"] = self.of("decoder/position_encodings/encodings")
        self["decoder.token_embedding.weight"] = self.of("decoder/embeddings/weight")
        self.norm("encoder.ln_post", "encoder/layer_norm")
        self.norm("decoder.ln", "decoder/layer_norm")
        for side in ("encoder", "decoder"):
            for i in range(self.layers(side)):
                to, source = f"{side}.blocks.{i}", f"{side}/layer_{i}"
                self.parts(to + ".attn", source + "/self_attention/linear_0", ["query", "key", "value"])
                self.linear(to + ".attn.out", source + "/self_attention/linear_1")
                self.norm(to + ".attn_ln", source + "/self_attention/layer_norm")
                if side == "decoder":
                    self.linear(to + ".cross_attn.query", source + "/attention/linear_0")
                    self.parts(to + ".cross_attn", source + "/attention/linear_1", ["key", "value"])
                    self.linear(to + ".cross_attn.out", source + "/attention/linear_2")
                    self.norm(to + ".cross_attn_ln", source + "/attention/layer_norm")
                self.linear(to + ".mlp.0", source + "/ffn/linear_0")
                self.linear(to + ".mlp.2", source + "/ffn/linear_1")
                self.norm(to + ".mlp_ln", source + "/ffn/layer_norm")

    def layers(self, side):
        return sum(1 for k in self.found if k.startswith(side + "/layer_") and k.endswith("ffn/linear_0/bias"))


def vocabulary(path):
    """Tokens as bytes: GPT-2's letters stand for bytes."""
    tokenizer = json.load(open(path, encoding="utf-8"))
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in plain}
    letters.update({chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in plain)})
    special = {t["id"] for t in tokenizer["added_tokens"]}
    base = sorted((i, t) for t, i in tokenizer["model"]["vocab"].items() if i not in special and i < 50257)
    assert [i for i, _ in base] == list(range(len(base))), "tokens are missing"
    return [bytes(letters[c] for c in t) for _, t in base]


def mel():
    """Slaney's filters, as librosa makes them."""
    step, linear, corner = np.log(6.4) / 27, 200 / 3, 1000.0
    to_mel = lambda h: h / linear if h < corner else corner / linear + np.log(h / corner) / step
    to_hertz = lambda m: np.where(m < corner / linear, m * linear, corner * np.exp(step * (m - corner / linear)))
    edges = to_hertz(np.linspace(to_mel(0.0), to_mel(RATE / 2), MELS + 2))
    at = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rows = []
    for low, middle, high in zip(edges, edges[1:], edges[2:]):
        rows.append(np.maximum(0, np.minimum((at - low) / (middle - low), (high - at) / (high - middle))) * 2 / (high - low))
    return np.array(rows, np.float32)


def write(out, tensors, words):
    state = tensors["encoder.positional_embedding"].shape[1]
    text = tensors["decoder.positional_embedding"].shape[0]
    vocab = tensors["decoder.token_embedding.weight"].shape[0]
    layers = tensors.layers("encoder"), tensors.layers("decoder")
    heads = state // 64
    out.write(struct.pack("<i", MAGIC))
    out.write(struct.pack("<11i", vocab, CONTEXT, state, heads, layers[0], text, state, heads, layers[1], MELS, FTYPE))
    filters = mel()
    out.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
    out.write(struct.pack("<i", len(words)))
    for word in words:
        out.write(struct.pack("<i", len(word)) + word)
    for name, value in tensors.items():
        if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
            value = value.reshape(-1, 1)
        small = value.ndim >= 2 and not name.endswith("bias") and "positional_embedding" not in name
        label = name.encode()
        kind = (F16 if "conv" in name else Q8_0) if small else F32
        head = struct.pack("<3i", value.ndim, len(label), kind) + struct.pack(f"<{value.ndim}i", *value.shape[::-1])
        if kind == Q8_0:
            blocks = value.reshape(-1, BLOCK)
            scale = np.abs(blocks).max(1) / 127
            steps = np.where(scale > 0, 1 / np.maximum(scale, 1e-30), 0)
            rows = np.empty(len(blocks), dtype=[("scale", "<f2"), ("steps", "i1", BLOCK)])
            rows["scale"], rows["steps"] = scale, np.rint(blocks * steps[:, None]).astype(np.int8)
            body = rows.tobytes()
        else:
            body = np.ascontiguousarray(value.astype(np.float16 if kind == F16 else np.float32)).tobytes()
        out.write(head + label + body)


def main():
    directory, out = sys.argv[1:3]
    tensors = Tensors(read(directory + "/model.bin"))
    tensors.fill()
    words = vocabulary(directory + "/tokenizer.json")
    with open(out, "wb") as f:
        write(f, tensors, words)
    print(f"{out}: {len(tensors)} tensors, {len(words)} tokens")


if __name__ == "__main__":
    main()
