"""Trains, stops and resumes where peft cannot be imported; prints what it found as JSON."""

import json
import sys
import warnings
from pathlib import Path

sys.modules["peft"] = None  # type: ignore[assignment]  # as importlib has it: not there
warnings.simplefilter("ignore")

import torch  # noqa: E402
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402
from transformers.utils.import_utils import is_peft_available  # noqa: E402

from lorafit.peft import LoraConfig, get_peft_model  # noqa: E402
from tests import tiny  # noqa: E402


class Rows(torch.utils.data.Dataset):
    def __init__(self, family):
        g = torch.Generator().manual_seed(5)
        self.ids = torch.randint(3, tiny.VOCAB, (24, 6), generator=g)
        self.family = family

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        ids = self.ids[i]
        if self.family == "gpt2":
            return {"input_ids": ids, "labels": ids}
        segments = (torch.arange(6) > 2).long()
        return {"input_ids": ids, "token_type_ids": segments, "labels": int(ids[0]) % 3}


class StopAt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= 6
        return control


def build(family):
    torch.manual_seed(0)
    if family == "gpt2":
        config = LoraConfig(r=4, lora_dropout=0.1, task_type="CAUSAL_LM")
        return get_peft_model(tiny.language_model("gpt2"), config)
    config = LoraConfig(r=4, lora_dropout=0.1, task_type="SEQ_CLS")
    return get_peft_model(tiny.classifier("bert"), config)


def trainer(family, model, folder, stop=False):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        eval_strategy="steps",
        eval_steps=6,
        save_steps=6,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        dataloader_pin_memory=False,
        load_best_model_at_end=not stop,
    )
    rows = Rows(family)
    return Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[StopAt()] if stop else None,
    )


def main(family, folder):
    whole = build(family)
    before = {n: p.detach().clone() for n, p in whole.named_parameters()}
    run = trainer(family, whole, folder / "whole")
    run.train()
    # transformers 5.23 has no public way to ask which columns the model takes.
    run._set_signature_columns_if_needed()  # noqa: SLF001
    columns = run._signature_columns  # noqa: SLF001
    trainer(family, build(family), folder / "parts", stop=True).train()
    resumed = build(family)
    trainer(family, resumed, folder / "parts").train(
        resume_from_checkpoint=str(folder / "parts" / "checkpoint-6")
    )
    after = dict(resumed.named_parameters())
    print(
        json.dumps(
            {
                "peft": is_peft_available(),
                "same": all(torch.equal(p, after[n]) for n, p in whole.named_parameters()),
                "moved": any(not torch.equal(p, before[n]) for n, p in after.items()),
                "eval_loss": any("eval_loss" in entry for entry in run.state.log_history),
                "full": (folder / "whole" / "checkpoint-6" / "model.safetensors").is_file(),
                "columns": "token_type_ids" in columns,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
