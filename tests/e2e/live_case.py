"""Live jobs for tests: a small MLP as backbone, its head through the service, and the same in plain PyTorch."""

import copy
import re

import grpc
import numpy as np
import torch

import torch_head
from harness import Case, Name, make_data
from trainer import describe

C, D, INPUTS = 37, 16, 10
SGD = {"momentum": 0.9, "weight_decay": 5e-4}
LR = 0.05


def make_case(folder, trainers=1, steps=50, batch_size=32, **train):
    spec = {
        "num_classes": C, "dim": D, "batch_size": batch_size, "steps": steps, "live": {"trainers": trainers},
        "loss": {"preset": Name("SV_AM_SOFTMAX")}, "optimizer": {"sgd": SGD}, "schedule": {"base_lr": LR},
        "checkpoint": {"every_steps": 0, "keep": 100}, "init": {"weights": "w.safetensors"},
    }
    case = Case(folder, {"name": "live", "train": spec})
    case.change(**train)
    case.initial = make_data(3, 10, C, D)[2]
    case.save_weights(case.initial)
    return case


def backbone():
    torch.manual_seed(11)
    return torch.nn.Sequential(torch.nn.Linear(INPUTS, 24), torch.nn.ReLU(), torch.nn.Linear(24, D))


def batch(step, rows=24):
    """Inputs [rows, INPUTS] and labels of a step, some ignored."""
    rng = np.random.default_rng(1000 + step)
    labels = rng.integers(0, C, rows)
    centres = np.random.default_rng(5).standard_normal((C, INPUTS))
    inputs = centres[labels] + 0.3 * rng.standard_normal((rows, INPUTS))
    labels[rng.random(rows) < 0.05] = -1
    return torch.tensor(inputs, dtype=torch.float32), labels


def split(rows, trainers):
    """Where the rows of each trainer begin and end: unlike sizes."""
    if trainers == 1:
        return [(0, rows)]
    first = rows // 3
    return [(0, first), (first, rows)]


class Backbone:
    """The MLP of a trainer, with its optimizer; data-parallel trainers hold equal ones."""

    def __init__(self):
        self.net = backbone()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LR, momentum=0.9)

    def state(self):
        return copy.deepcopy((self.net.state_dict(), self.optimizer.state_dict()))

    def restore(self, state):
        net, optimizer = copy.deepcopy(state)
        self.net.load_state_dict(net)
        self.optimizer.load_state_dict(optimizer)

    def update(self, features, gradient):
        self.optimizer.zero_grad()
        features.backward(torch.tensor(gradient))
        self.optimizer.step()


def plain_run(steps, rows=24):
    """Losses of the same training with autograd through backbone and head, and the first gradient of the features."""
    model = Backbone()
    weight = torch.tensor(make_data(3, 10, C, D)[2], dtype=torch.float64, requires_grad=True)
    head_optimizer = torch.optim.SGD([weight], lr=LR, **SGD)
    loss_of = torch_head.Loss.preset("SV_AM_SOFTMAX")
    losses, first = [], None
    for step in range(steps):
        inputs, labels = batch(step, rows)
        features = model.net(inputs)
        features.retain_grad()
        model.optimizer.zero_grad()
        head_optimizer.zero_grad()
        loss, _ = torch_head.batch_loss(loss_of, weight, features.double(), torch.tensor(labels))
        loss.backward()
        first = features.grad.numpy().copy() if first is None else first
        model.optimizer.step()
        head_optimizer.step()
        losses.append(loss.item())
    return losses, first


def endpoints(launch):
    """HOST:PORT of the data plane of each rank, as the ranks say on stderr."""
    return [address for _, address in sorted(
        (int(rank), address) for rank, address in re.findall(r"rank (\d+) serves trainers at (\S+)", launch.text()))]


def wait_for_endpoints(launch, ranks, *credentials):
    """The endpoints, once the job waits for its trainers. `credentials` as of describe()."""
    launch.wait_until(lambda: len(endpoints(launch)) == ranks, "every rank to serve trainers")
    for address in endpoints(launch):
        launch.wait_until(lambda: is_open(address, *credentials), "the job to wait for trainers")
    return endpoints(launch)


def is_open(address, *credentials):
    try:
        return bool(describe(address, *credentials).job)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return False


class Team:
    """All trainers of a job, driven in turn by one thread: a step is sent by each before an answer is awaited."""

    def __init__(self, addresses, trainers, connect):
        self.model = Backbone()
        self.trainers = [connect(addresses[t * len(addresses) // trainers], t) for t in range(trainers)]

    def step(self, step, rows=24, **fields):
        inputs, labels = batch(step, rows)
        parts = split(rows, len(self.trainers))
        features = self.model.net(inputs)
        for trainer, (first, end) in zip(self.trainers, parts):
            trainer.send_step(step, features[first:end].detach().numpy(), labels[first:end], **fields)
        answers = [trainer.receive_step(features[first:end]) for trainer, (first, end) in zip(self.trainers, parts)]
        gradient = np.concatenate([gradients for _, gradients in answers])
        self.model.update(features, gradient)
        replies = [reply for reply, _ in answers]
        assert all(reply.loss == replies[0].loss for reply in replies)
        return replies[0], gradient

    def load(self, step):
        for trainer in self.trainers:
            trainer.send(load={"step": step})
        for trainer in self.trainers:
            assert trainer.receive().load.step == step

    def close(self):
        for trainer in self.trainers:
            trainer.close()
