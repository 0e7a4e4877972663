"""A backbone trained through the real server and worker, beside the same in plain PyTorch and float64."""

import concurrent.futures

import numpy as np
import pytest
import torch

import torch_head
from live_case import B, D, INPUT, LOSS, LR, SGD, LivePlane, batch, initial_weight, spec
from shardmax.torch import ShardedHead

STEPS = 50
SPLITS = {1: [B], 2: [B // 3, B - B // 3]}


def make_backbone():
    torch.manual_seed(11)
    layers = torch.nn.Linear(INPUT, 20), torch.nn.Tanh(), torch.nn.Linear(20, D)
    return torch.nn.Sequential(*layers).double()


def make_loss():
    settings = {key: value for key, value in LOSS.items() if key != "preset"}
    return torch_head.Loss.preset(LOSS["preset"], **settings)


class PlainHead:
    """The head of torch_head, with an optimizer of its own."""

    def __init__(self):
        self.weight = torch.tensor(initial_weight().astype(np.float64), requires_grad=True)
        self.optimizer = torch.optim.SGD([self.weight], lr=LR, **SGD)
        self.step = 0

    def __call__(self, features, labels):
        """Loss of this step; its backward() is for the backbone and for the update of the head."""
        loss, outcome = torch_head.batch_loss(make_loss().at(self.step), self.weight, features, labels)
        self.step += 1
        return loss, outcome

    def update(self):
        self.optimizer.step()
        self.optimizer.zero_grad()


def rows_of(step, trainers):
    return [batch(step, rows, trainer) for trainer, rows in enumerate(SPLITS[trainers])]


def through_the_service(heads, threads, backbone, step, trainers):
    """Loss and gradients [parameters] of one step of all trainers together."""
    features = [backbone(torch.tensor(images).double()).float() for images, _ in rows_of(step, trainers)]
    labels = [torch.tensor(labels) for _, labels in rows_of(step, trainers)]
    losses = list(threads.map(lambda head, x, y: head(x, y), heads, features, labels))
    assert len({loss.item() for loss in losses}) == 1
    backbone.zero_grad()
    for loss in losses:
        loss.backward()
    return losses[0].item(), torch.cat([parameter.grad.flatten() for parameter in backbone.parameters()])


def in_plain_torch(head, backbone, step, trainers):
    images, labels = (np.concatenate(each) for each in zip(*rows_of(step, trainers)))
    # What goes over the wire is rounded, here too.
    features = backbone(torch.tensor(images).double()).float().double()
    backbone.zero_grad()
    loss, outcome = head(features, torch.tensor(labels))
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in backbone.parameters()]), outcome


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("trainers", [1, 2])
def test_gradients_and_loss_curve_are_those_of_plain_torch(tmp_path, trainers, ranks):
    with LivePlane(tmp_path, ranks) as plane, concurrent.futures.ThreadPoolExecutor(trainers) as threads:
        job = plane.python.submit(spec(trainers, STEPS))
        heads = [
            ShardedHead(plane.server.address, job.id, trainer=trainer, gradient_scale=1, reconnect_s=60)
            for trainer in range(trainers)
        ]
        backbone, plain, alone = make_backbone(), PlainHead(), make_backbone()
        mine = torch.optim.SGD(backbone.parameters(), lr=0.02, momentum=0.9)
        theirs = torch.optim.SGD(alone.parameters(), lr=0.02, momentum=0.9)
        first, worst_gradient, worst_loss = None, 0.0, 0.0
        for step in range(STEPS):
            loss, gradient = through_the_service(heads, threads, backbone, step, trainers)
            expected_loss, expected, outcome = in_plain_torch(plain, alone, step, trainers)
            error = float((gradient - expected).norm() / expected.norm())
            first = outcome if step == 0 else first
            assert error <= 1e-5, f"step {step}: gradients differ by {error:.3g} ({outcome})"
            worst_gradient = max(worst_gradient, error)
            worst_loss = max(worst_loss, abs(loss - expected_loss) / expected_loss)
            mine.step()
            theirs.step()
            plain.update()
        print(f"T={trainers} N={ranks}: gradients within {worst_gradient:.2g}, loss curve within {worst_loss:.2g}")
        assert worst_loss <= 1e-4
        assert outcome.label_cosine > first.label_cosine + 0.1, "nothing was learnt"
        for head in heads:
            head.close()
        assert plane.python.wait(job.id, quiet=True).progress.step == STEPS
