"""Parts of one's own for diffusion-lit: a network, a noise schedule, a data set and a callback."""
