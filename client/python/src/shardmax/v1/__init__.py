"""The messages of shardmax: job_pb2, control_pb2, head_pb2, checkpoint_pb2, generated from proto/ at build time."""
