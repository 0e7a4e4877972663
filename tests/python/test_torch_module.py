"""ShardedHead as a module of PyTorch: what autograd, DDP, AMP and a training loop make of it, beside plain PyTorch."""

import pathlib
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

import shardmax
from fake_head import FakeHead
from shardmax.torch import ShardedHead

CLASSES, DIM, INPUT = 7, 4, 5
TRAINER = pathlib.Path(__file__).with_name("ddp_trainer.py")


def batch(step=0, rows=6):
    rng = np.random.default_rng(step)
    images = torch.tensor(rng.standard_normal((rows, INPUT)), dtype=torch.float32)
    return images, torch.tensor(rng.integers(-1, CLASSES, rows))


def make_backbone():
    torch.manual_seed(5)
    return torch.nn.Linear(INPUT, DIM)


def plain_gradient(weight, images, labels):
    """Of the backbone, by the mean over all rows that are not ignored."""
    backbone = make_backbone()
    logits = backbone(images).double() @ torch.tensor(weight).T
    torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1).backward()
    return backbone.weight.grad


def make_head(fake, **options):
    return ShardedHead(endpoint=fake.endpoint, reconnect_s=30, **options)


@pytest.fixture
def fake():
    with FakeHead(CLASSES, DIM) as fake:
        yield fake


def test_backward_brings_the_gradients_of_the_loss(fake):
    weight, (images, labels) = fake.weight, batch()
    backbone, head = make_backbone(), make_head(fake)
    assert list(head.parameters()) == [] and head.state_dict() == {}
    loss = head(backbone(images), labels.reshape(-1, 1))
    assert loss.shape == () and loss.dtype == torch.float32
    loss.backward()
    torch.testing.assert_close(backbone.weight.grad, plain_gradient(weight, images, labels), rtol=1e-5, atol=1e-7)
    assert (head.steps_done, head.stats.step, head.stats.counted_rows) == (1, 0, int((labels >= 0).sum()))
    assert "steps_done=1" in repr(head)
    head.close()


def test_gradients_add_up_over_calls_and_every_call_is_a_step(fake):
    backbone, head = make_backbone(), make_head(fake)
    expected = torch.zeros_like(backbone.weight)
    for step in range(3):
        expected += plain_gradient(fake.weight, *batch(step)) / 3
        (head(backbone(batch(step)[0]), batch(step)[1]) / 3).backward()
    torch.testing.assert_close(backbone.weight.grad, expected, rtol=1e-5, atol=1e-7)
    assert fake.steps_made == head.steps_done == 3
    head.close()


@pytest.mark.parametrize("dtype, bound", [(torch.float16, 2e-3), (torch.bfloat16, 3e-2)])
def test_small_gradients_survive_half_precision_under_a_loss_scale(fake, dtype, bound):
    """As GradScaler does it: unscaled, the gradients of these embeddings are below what float16 can hold."""
    fake.weight *= 1e-7
    images, labels = batch()
    weight, scale = fake.weight, 2.0**20
    embeddings = make_backbone()(images).to(dtype).detach().requires_grad_()
    head = make_head(fake)
    (head(embeddings, labels) * scale).backward()
    head.close()
    logits = embeddings.detach().double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits @ torch.tensor(weight).T, labels, ignore_index=-1)
    (expected,) = torch.autograd.grad(loss * scale, logits)
    assert embeddings.grad.dtype == dtype
    assert expected.abs().max() / scale < 6e-8 and embeddings.grad.abs().max() > 0
    torch.testing.assert_close(embeddings.grad.double(), expected, rtol=bound, atol=bound * float(expected.abs().max()))


def test_each_wire_type_is_what_the_embeddings_or_the_user_say(fake):
    sent = []
    take_step = fake._take_step
    fake._take_step = lambda trainer, step, slot: (sent.append(step.type), take_step(trainer, step, slot))
    cases = [("auto", torch.float32), ("auto", torch.bfloat16), ("auto", torch.float16), ("float16", torch.float32)]
    for wire, dtype in cases:
        head = make_head(fake, wire=wire, step=fake.steps_done)
        head(make_backbone()(batch()[0]).to(dtype), batch()[1]).backward()
        head.close()
    assert sent == [1, 3, 1, 2]


def test_a_call_that_could_not_train_the_backbone_is_refused_and_makes_no_step(fake):
    images, labels = batch()
    backbone, head = make_backbone(), make_head(fake)
    embeddings = backbone(images)
    with pytest.raises(shardmax.InvalidArgumentError, match="eval mode"):
        head.eval()(embeddings, labels)
    head.train()
    with torch.no_grad(), pytest.raises(shardmax.InvalidArgumentError, match="under no_grad"):
        head(embeddings, labels)
    with pytest.raises(shardmax.InvalidArgumentError, match="need no gradient"):
        head(embeddings.detach(), labels)
    with pytest.raises(shardmax.InvalidArgumentError, match="labels are torch.float32"):
        head(embeddings, labels.float())
    with pytest.raises(TypeError, match="no weights"):
        pickle.dumps(head)
    assert fake.steps_made == 0
    head.close()


def test_the_learning_rate_follows_a_number_a_function_or_a_parameter_group(fake):
    images, labels = batch()
    backbone = make_backbone()
    # The empty group is that of a script whose PartialFC was replaced.
    optimizer = torch.optim.SGD([{"params": backbone.parameters()}, {"params": []}], lr=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    head = make_head(fake, lr=0.25)
    head(backbone(images), labels).backward()
    head.lr = lambda step: step * 2.0
    head(backbone(images), labels).backward()
    head.lr = optimizer.param_groups[1]
    for _ in range(2):
        head(backbone(images), labels).backward()
        optimizer.step()
        schedule.step()
    head.lr = None
    head(backbone(images), labels).backward()
    assert fake.lrs == [0.25, 2.0, 0.5, 0.25, 0.1]
    head.close()


def test_a_world_of_another_size_than_the_job_is_refused(fake):
    with FakeHead(CLASSES, DIM, trainers=3) as other:
        head = make_head(other)
        with pytest.raises(shardmax.InvalidArgumentError, match="job has 3 trainers and torch.distributed 1 ranks"):
            head(make_backbone()(batch()[0]), batch()[1])
        head.close()


def test_under_ddp_the_backbone_gets_the_gradient_of_the_global_loss(tmp_path):
    """As with PartialFC_V2: DDP divides by the world, so the head multiplies by it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with FakeHead(CLASSES, DIM, trainers=2) as fake:
        weight = fake.weight
        command = [sys.executable, "-B", TRAINER, fake.endpoint, tmp_path]
        ranks = [subprocess.Popen([*command, str(rank), str(port)]) for rank in range(2)]
        assert [rank.wait(120) for rank in ranks] == [0, 0]
    parts = [batch(rank, rows=4 + 3 * rank) for rank in range(2)]
    expected = plain_gradient(weight, *(torch.cat(each) for each in zip(*parts)))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, rtol=1e-5, atol=1e-7)
