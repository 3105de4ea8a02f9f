"""Rewrite a network pickle of NVlabs/edm or NVlabs/edm2 as tensors and plain values.

Loading a pickle runs whatever is in it, so that this project reads none. Whoever trusts a pickle runs this file, which
imports nothing of this project, in a checkout of the project that wrote it, with that project's Python:

    pip install safetensors
    PYTHONPATH=. python nvlabs_pickle.py network-snapshot-200000.pkl network-snapshot-200000.safetensors

It keeps the averaged weights, which are the only ones in there, and what the network was built with.
"""

import json
import pickle
import sys


def convert(source, target):  # type: ignore[no-untyped-def]  # for Pythons and torches of 2022
    """Write the network of the pickle `source` to the safetensors file `target`."""
    from safetensors.torch import save_file

    with open(source, "rb") as file:
        data = pickle.load(file)
    network = data["ema"] if isinstance(data, dict) else data
    if network.init_args:
        raise SystemExit(f"the network was built with arguments without names, {network.init_args}: give them names")
    config = dict(network.init_kwargs, class_name=type(network).__name__)
    text = json.dumps(config, default=lambda value: value.tolist())  # of numpy's numbers
    state = {name: w.detach().cpu().clone().contiguous() for name, w in network.state_dict().items()}
    save_file(state, target, {"nvlabs": text})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("give the pickle and the file to write: nvlabs_pickle.py NETWORK.pkl NETWORK.safetensors")
    convert(*sys.argv[1:])  # type: ignore[no-untyped-call]
