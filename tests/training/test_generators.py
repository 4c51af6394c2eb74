import json
import random

import numpy as np
import torch

from lorafit.training.generators import generator_states, restore_generators


def test_generators_come_back_exactly():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    random.gauss(0, 1), np.random.standard_normal()  # each leaves a second number behind
    values, tensors = generator_states()
    values = json.loads(json.dumps(values))

    def draw():
        return random.gauss(0, 1), np.random.standard_normal(), np.random.rand(), torch.rand(3)

    first = draw()
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    restore_generators(values, tensors)
    again = draw()
    assert first[:3] == again[:3]
    assert torch.equal(first[3], again[3])
