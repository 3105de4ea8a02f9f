"""Hybrid sharding: each node holds the parameters once, in pieces."""

from lightning.pytorch.strategies import ModelParallelStrategy

__all__ = ["HybridShardStrategy"]


class HybridShardStrategy(ModelParallelStrategy):
    """FSDP2 on a mesh (replicate, shard) of processes: gradients are reduced within a replica, then between replicas.

    Process r is piece r mod `shard_size` of replica r // `shard_size`: with as many pieces as a node has devices, what
    is gathered for each block stays within the node.

    Args:
        num_replicas: how many copies of the parameters there are.
        shard_size: over how many processes each copy is shared out, 2 or more.
    """

    def __init__(self, num_replicas: int, shard_size: int) -> None:
        super().__init__(num_replicas, shard_size, save_distributed_checkpoint=False)  # the shape of its 2-D mesh
        self.num_replicas, self.shard_size = num_replicas, shard_size

    def check(self, processes: int) -> None:
        """Check the mesh against the number of processes.

        Raises:
            ValueError: if `shard_size` is under 2, or these are not all processes.
        """
        if self.shard_size < 2:
            raise ValueError(
                f"strategy=hsdp shares each copy of the parameters out over 2 processes or more, got "
                f"trainer.strategy.shard_size={self.shard_size}; with one device on each node use strategy=ddp"
            )
        if self.num_replicas * self.shard_size != processes:
            raise ValueError(
                f"trainer.strategy.num_replicas={self.num_replicas} x trainer.strategy.shard_size={self.shard_size} "
                f"must be the number of processes, {processes}: leave them at trainer.num_nodes and trainer.devices"
            )
