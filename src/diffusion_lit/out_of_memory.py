"""Errors by which a device, or the machine, says that its memory is full."""

__all__ = ["is_out_of_memory"]

SAID = ("not enough memory", "DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
"""The last one by cuBLAS and cuDNN, for which little was left."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so: Python's `MemoryError`, or torch's, which are RuntimeErrors."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)
    return said or isinstance(error, MemoryError)
