"""Low-rank adapters: what a shop taught the language model, a megabyte beside the model itself.

An adapter adds to each weight matrix W of the model a product B·A of low rank (Hu et al. 2022,
"LoRA"). When it is loaded it is added to W once, so serving costs what it cost before.

DIR/adapter_config.json        peft's: the form, and the model that it belongs to by our name
DIR/adapter_model.safetensors  A and B
DIR/tuning.json                how it was made, what it gained, the fingerprint of the model
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from encoders.digests import digest_of
from encoders.text_config import TextConfig, TextModelError

CONFIG, WEIGHTS, MADE = "adapter_config.json", "adapter_model.safetensors", "tuning.json"


def is_adapter(model: str) -> bool:
    """Is this the folder of an adapter?"""
    return (Path(model) / CONFIG).is_file()


def unadapted(config: TextConfig) -> TextConfig:
    """The same with the model that the adapter belongs to; itself if it names no adapter.

    Raises TextModelError.
    """
    if not is_adapter(config.model):
        return config
    base = _read(config.model, CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise _fault(config.model, f"its {CONFIG} names no base_model_name_or_path")
    if is_adapter(base):
        raise _fault(config.model, f"the model that it names, {base}, is an adapter itself")
    if base.startswith(("/", "./", "../")):
        if not Path(base).is_dir():
            raise TextModelError(
                f"FRESHREC_TEXT_MODEL={config.model}: it adapts the model {base}, which is not "
                f"there: put it back, or change base_model_name_or_path in {CONFIG}"
            )
        return replace(config, model=base, revision="")
    name, _, revision = base.partition("@")
    return replace(config, model=name, revision=revision)


def base_name(config: TextConfig) -> str:
    """How an adapter names its model: as the setting does, but a folder in full.

    >>> base_name(TextConfig("org/name", revision="v2"))
    'org/name@v2'
    """
    if Path(config.model).is_dir():
        return str(Path(config.model).absolute())
    return f"{config.model}@{config.revision}" if config.revision else config.model


def adapted(model: Any, fingerprint: str, config: TextConfig) -> tuple[Any, str]:
    """The model with the adapter that `config` names in its weights, and both their fingerprints.

    Both as they are when it names none. Raises TextModelError: one of another model is refused,
    since its products mean nothing there.
    """
    folder = Path(config.model)
    if not is_adapter(config.model):
        return model, fingerprint
    if not (folder / WEIGHTS).is_file():  # peft would go on to read pickles, and to ask the hub
        raise _fault(config.model, f"it has no {WEIGHTS}")
    wanted = _read(config.model, MADE).get("base") if (folder / MADE).is_file() else None
    if wanted not in (None, fingerprint):
        raise _fault(config.model, f"it was made for weights {wanted}, and these are {fingerprint}")
    from peft import PeftModel

    try:
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except Exception as fault:  # peft, safetensors and torch raise a dozen kinds
        raise _fault(config.model, str(fault).strip().splitlines()[0][:200]) from None
    return merged, f"{fingerprint}+{digest_of(folder / WEIGHTS, folder / CONFIG)}"


def save_adapter(folder: Path, model: Any, base: str, made: dict[str, Any]) -> None:
    """Write the adapter of a `peft.PeftModel` to a new folder. Raises OSError."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    form = model.peft_config["default"]
    form.base_model_name_or_path, form.inference_mode = base, True
    form.target_modules = sorted(form.target_modules)  # a set: in another order each time
    form.save_pretrained(str(folder))
    kept = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    save_file(kept, folder / WEIGHTS)
    write_made(folder, made)


def write_made(folder: Path, made: dict[str, Any]) -> None:
    """Note in an adapter's folder how it was made. Raises OSError."""
    (folder / MADE).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _read(folder: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(folder) / name).read_bytes())
    except (OSError, ValueError) as fault:
        raise _fault(folder, f"{name} cannot be read: {fault}") from None
    if not isinstance(found, dict):
        raise _fault(folder, f"{name} is no object")
    return found


def _fault(folder: str, why: str) -> TextModelError:
    return TextModelError(
        f"FRESHREC_TEXT_MODEL={folder}: the adapter cannot be used ({why}): make it anew with "
        "freshrec tune-text, or name another model; or use --no-text"
    )
