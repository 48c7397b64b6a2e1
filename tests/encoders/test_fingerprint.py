import torch

from gridloom.encoders.fingerprint import fingerprint
from tests.encoders.small import small_autoencoder


def test_the_same_weights_and_statistics_have_the_same_fingerprint_and_others_another():
    encoder = small_autoencoder().encoder
    same = fingerprint(encoder, {"a": 1, "b": [0.1]})
    assert len(same) == 64 and int(same, 16) >= 0
    assert fingerprint(small_autoencoder().encoder.train(), {"b": [0.1], "a": 1}) == same
    others = {fingerprint(small_autoencoder(seed=1).encoder, {"a": 1, "b": [0.1]}), fingerprint(encoder, {})}
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-6
    others.add(fingerprint(encoder, {"a": 1, "b": [0.1]}))
    assert len(others) == 3 and same not in others


def test_scalars_and_halves_are_counted():
    module = torch.nn.BatchNorm1d(2).to(torch.bfloat16)
    before = fingerprint(module, {})
    module.num_batches_tracked += 1
    assert fingerprint(module, {}) != before
