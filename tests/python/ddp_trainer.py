"""One rank of two of a DistributedDataParallel training: ddp_trainer.py ENDPOINT FOLDER RANK PORT."""

import os
import sys

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from shardmax.torch import ShardedHead
from test_torch_module import batch, make_backbone

endpoint, folder, rank, port = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo")
torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
backbone = DistributedDataParallel(make_backbone())
head = ShardedHead(endpoint=endpoint, reconnect_s=30)
images, labels = batch(rank, rows=4 + 3 * rank)
head(backbone(images), labels).backward()
torch.save(backbone.module.weight.grad, f"{folder}/{rank}.pt")
head.close()
