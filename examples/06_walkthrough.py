"""The classic LoRA walk-through, with `lorafit.Trainer` in place of transformers' `Trainer`.

python examples/06_walkthrough.py              # distilbert-base-uncased on rotten_tomatoes
python examples/06_walkthrough.py --offline    # a small random model and data made here
python examples/06_walkthrough.py --model PATH --data FOLDER --target-modules query value

It is the script that tutorials show. The only line that is different is the import of `Trainer`.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainingArguments,
    set_seed,
)

from lorafit import Trainer  # instead of: from transformers


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as scratch:
        if args.offline:
            args.model, args.data = make_offline(Path(scratch))
        run(args)


def run(args: argparse.Namespace) -> None:
    # The head and the adapter are initialised before the Trainer seeds anything.
    set_seed(0)

    # 1. Data and tokenizer
    dataset = load_dataset(args.data)
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def tokenize(batch):
        return tokenizer(batch["text"], truncation=True, max_length=128)

    dataset = dataset.map(tokenize, batched=True, remove_columns=["text"])

    # 2. Model
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model,
        num_labels=2,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )

    # 3. LoRA: rank 8 on the queries and values; the head is trained and saved as well
    config = LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules=args.target_modules,
        lora_dropout=0.05,
        bias="none",
        task_type=TaskType.SEQ_CLS,
    )
    model = get_peft_model(model, config)
    model.print_trainable_parameters()

    # 4. Training on lorafit's engines; checkpoints hold the adapter only
    def accuracy(prediction):
        return {"accuracy": float(np.mean(prediction[0].argmax(-1) == prediction[1]))}

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.out,
            learning_rate=args.learning_rate,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            num_train_epochs=args.epochs,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            report_to="none",
            seed=0,
        ),
        train_dataset=dataset["train"],
        eval_dataset=dataset["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer=tokenizer),
        compute_metrics=accuracy,
    )
    print("before:", trainer.evaluate(dataset["test"])["eval_accuracy"])
    trainer.train()
    print("after:", trainer.evaluate(dataset["test"])["eval_accuracy"])

    # 5. Save the adapter (PEFT's format) and load it on a fresh base
    adapter = f"{args.out}/adapter"
    model.save_pretrained(adapter)
    base = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    loaded = PeftModel.from_pretrained(base, adapter)

    # 6. Merge: a plain transformers model without any adapter left in it
    batch = tokenizer(["an absolute delight", "dull and far too long"], padding=True)
    batch = {key: torch.tensor(value) for key, value in batch.items()}
    with torch.no_grad():
        live = model.eval()(**batch).logits
        again = loaded(**batch).logits
        merged = loaded.merge_and_unload()(**batch).logits
    print(f"loaded: differs by {(again - live).abs().max():.1e} at most")
    print(f"merged: differs by {(merged - live).abs().max():.1e} at most")


def make_offline(folder: Path) -> tuple[str, str]:
    """Makes a small DistilBERT with random weights and reviews whose words tell the label."""
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

    random.seed(0)
    torch.manual_seed(0)
    words = {1: ["delight", "great", "warm", "funny"], 0: ["dull", "awful", "long", "weak"]}
    neutral = ["a", "the", "film", "story", "an", "absolute", "and", "far", "too", "plot", "is"]
    data = folder / "reviews"
    data.mkdir()
    for split, rows in (("train", 800), ("validation", 100), ("test", 100)):
        lines = ["text,label"]
        for label in (index % 2 for index in range(rows)):
            text = random.choices(neutral, k=random.randint(3, 9)) + random.choices(words[label])
            random.shuffle(text)
            lines.append(f"{' '.join(text)},{label}")
        (data / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    model = folder / "distilbert"
    model.mkdir()
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *neutral, *words[0], *words[1]]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(model)
    shape = DistilBertConfig(
        vocab_size=len(vocab),
        dim=64,
        n_layers=3,
        n_heads=4,
        hidden_dim=128,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    DistilBertModel(shape).save_pretrained(model)
    return str(model), str(data)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="distilbert-base-uncased", help="Hub id or folder")
    parser.add_argument("--data", default="rotten_tomatoes", help="Hub id or folder")
    parser.add_argument(
        "--target-modules", nargs="+", default=["q_lin", "v_lin"], help="layers to adapt"
    )
    parser.add_argument("--out", default="walkthrough", help="where checkpoints go")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--offline", action="store_true", help="make model and data here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
