"""The bare loop: an adapter on any PyTorch model, trained with your own loop.

    python examples/03_bare_loop.py

Nothing is read from disk or a hub: a small random network learns to follow a change of its
own weights that has rank 2, which an adapter of rank 2 can express.
"""

import copy

import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.methods.lora import LoraConfig

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))

teacher = copy.deepcopy(model)
with torch.no_grad():
    for layer in (teacher[0], teacher[2]):
        weight = layer.get_parameter("weight")
        d_out, d_in = weight.shape
        weight.add_(0.3 * torch.randn(d_out, 2) @ torch.randn(2, d_in))
original = [parameter.clone() for parameter in model.parameters()]

adapters = Adapters(model)
for site in adapters.add(LoraConfig(r=2, lora_alpha=4, target_modules={"0", "2"})):
    print(f"layer {site.path}: {site.d_in} to {site.d_out}")

inputs = torch.randn(512, 16)
wanted = teacher(inputs).detach()
optimizer = torch.optim.AdamW(adapters.trainable().values(), lr=1e-2, weight_decay=0.0)
for step in range(501):
    loss = nn.functional.mse_loss(model(inputs), wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:3}  loss {loss.item():.5f}")

# Merged computes the same at the cost of the base; unloading gives the base back.
adapted = model(inputs)
adapters.merge()
print(f"merged differs by {(model(inputs) - adapted).abs().max():.1e}")
adapters.unmerge()
adapters.unload(merge=False)
same = all(torch.equal(a, b) for a, b in zip(original, model.parameters(), strict=True))
print(f"the base is back, bit for bit: {same}")
